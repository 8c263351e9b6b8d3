package fault

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	for line, want := range map[string]Fault{
		"power-off north-1":      {Kind: PowerOff, Center: "north-1"},
		"power-on north-1":       {Kind: PowerOn, Center: "north-1"},
		"isolate south-1":        {Kind: Isolate, Center: "south-1"},
		"slow-disk south-1":      {Kind: SlowDisk, Center: "south-1"},
		"heal":                   {Kind: Heal},
		"cut north-1 south-1":    {Kind: Cut, Center: "north-1", Peer: "south-1"},
		"cut a-1 b-1 --one-way":  {Kind: Cut, Center: "a-1", Peer: "b-1", OneWay: true},
		"cut outside b-1":        {Kind: Cut, Center: Outside, Peer: "b-1"},
		"kill hub@north-1":       {Kind: Kill, Center: "north-1", Process: "hub"},
		"stop apiserver@north-1": {Kind: Stop, Center: "north-1", Process: "apiserver"},
		"cont postgres@south-1":  {Kind: Cont, Center: "south-1", Process: "postgres"},
	} {
		t.Run(line, func(t *testing.T) {
			got, err := parseLine(line)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got.String() != line {
				t.Errorf("prints as %q", got)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for name, line := range map[string]string{
		"nothing":                       "",
		"an unknown fault":              "explode north-1",
		"a power cut of nothing":        "power-off",
		"a power cut of two":            "power-off a-1 b-1",
		"a cut with one end":            "cut a-1",
		"a cut of a center from itself": "cut a-1 a-1",
		"a one-way power cut":           "power-off a-1 --one-way",
		"a heal of something":           "heal a-1",
		"a process without a center":    "kill hub",
		"a center without a process":    "kill @a-1",
		"a process at nowhere":          "kill hub@",
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := parseLine(line); err == nil {
				t.Errorf("got %v, want an error", got)
			}
		})
	}
}

func parseLine(line string) (Fault, error) {
	words := strings.Fields(line)
	oneWay := len(words) > 0 && words[len(words)-1] == "--one-way"
	if oneWay {
		words = words[:len(words)-1]
	}
	return Parse(words, oneWay)
}

func TestCutsWith(t *testing.T) {
	centers := []string{"a-1", "b-1", "c-1"}
	for name, tc := range map[string]struct {
		before Cuts
		fault  Fault
		want   []Direction
	}{
		"a cut loses both directions": {nil, Fault{Kind: Cut, Center: "a-1", Peer: "b-1"},
			[]Direction{{"a-1", "b-1"}, {"b-1", "a-1"}}},
		"a one-way cut loses one": {nil, Fault{Kind: Cut, Center: "a-1", Peer: "b-1", OneWay: true},
			[]Direction{{"a-1", "b-1"}}},
		"cuts add up": {Cuts{{"c-1", "a-1"}: true}, Fault{Kind: Cut, Center: "a-1", Peer: "b-1", OneWay: true},
			[]Direction{{"a-1", "b-1"}, {"c-1", "a-1"}}},
		"isolation loses every direction, the outside included": {nil, Fault{Kind: Isolate, Center: "b-1"},
			[]Direction{{"a-1", "b-1"}, {"b-1", "a-1"}, {"b-1", "c-1"}, {"b-1", "outside"}, {"c-1", "b-1"}, {"outside", "b-1"}}},
		"a heal undoes all":               {Cuts{{"c-1", "a-1"}: true}, Fault{Kind: Heal}, nil},
		"a power cut is no cut of a link": {Cuts{{"c-1", "a-1"}: true}, Fault{Kind: PowerOff, Center: "a-1"}, []Direction{{"c-1", "a-1"}}},
	} {
		t.Run(name, func(t *testing.T) {
			size := len(tc.before)
			if diff := cmp.Diff(tc.want, tc.before.With(tc.fault, centers).Sorted()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if len(tc.before) != size {
				t.Error("With changed its receiver")
			}
		})
	}
}

func TestEffectSaysWhen(t *testing.T) {
	effect := Effect{
		Fault:     Fault{Kind: PowerOff, Center: "north-1"},
		Monotonic: 1500 * time.Millisecond, Wall: time.Unix(0, 0), Processes: 3,
	}
	want := "power-off north-1: in force at monotonic 1.500000 s, 1970-01-01T00:00:00.000000Z (3 processes)"
	if got := effect.String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
