package evidence

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func chain() []Record {
	var c []Record
	at := time.Date(2026, 7, 1, 12, 0, 0, 123456789, time.UTC)
	for i, r := range []Record{
		{Kind: "Observation", Subject: "north-1", Text: "north-1 is Lost"},
		{Kind: "Decision", Subject: "north-1", Text: "decided", Mark: "Detected", SinceHeardMicros: 5_210_000},
		{Kind: "Approval", Subject: "alice", Text: "approved"},
		{Kind: "Decision", Subject: "pay/ledger-db", Text: "fenced <by> time", Mark: "Fenced", SinceHeardMicros: 5_260_000},
		{Kind: "Result", Subject: "north-2", Text: "promoted", Mark: "Promoted", SinceHeardMicros: 6_100_000},
		{Kind: "Result", Subject: "run", Text: "routes are committed; RPO 0", Mark: "Routed", SinceHeardMicros: 6_150_000},
	} {
		r.At, r.By = at.Add(time.Duration(i)*time.Second), "hub-north-2"
		c = Append(c, "pay.ledger.2", r)
	}
	return c
}

func TestVerifyNamesTheFirstBadRecord(t *testing.T) {
	for name, tc := range map[string]struct {
		edit func([]Record) []Record
		want int // 0: good
	}{
		"an untouched chain is good":               {func(c []Record) []Record { return c }, 0},
		"an edited text is found":                  {func(c []Record) []Record { c[2].Text = "approved by nobody"; return c }, 3},
		"an edited text with a new hash is found":  {func(c []Record) []Record { c[2].Text = "x"; c[2].Hash = c[2].hash(); return c }, 4},
		"a removed record is found":                {func(c []Record) []Record { return append(c[:1], c[2:]...) }, 2},
		"two records changed places":               {func(c []Record) []Record { c[3], c[4] = c[4], c[3]; return c }, 4},
		"a cut tail is found":                      {func(c []Record) []Record { return c[:4] }, 5},
		"another run's chain is found":             {func(c []Record) []Record { c[0].Run = "pay.ledger.3"; return c }, 1},
		"a duration that was made nicer is found":  {func(c []Record) []Record { c[5].SinceHeardMicros = 1; return c }, 6},
		"a whole chain written anew does not pass": {func(c []Record) []Record { return Append(nil, "pay.ledger.2", Record{Text: "all is well"}) }, 2},
	} {
		t.Run(name, func(t *testing.T) {
			head := Head(chain(), "pay.ledger.2")
			err := Verify(tc.edit(chain()), "pay.ledger.2", head)
			var bad *BadRecord
			switch {
			case tc.want == 0 && err != nil:
				t.Fatal(err)
			case tc.want != 0 && (!errors.As(err, &bad) || bad.Sequence != tc.want):
				t.Fatalf("got %v, want record %d", err, tc.want)
			}
		})
	}
}

func TestAChainSurvivesEncoding(t *testing.T) {
	b, err := Encode(chain())
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(chain(), got); diff != "" {
		t.Fatal(diff)
	}
	if err := Verify(got, "pay.ledger.2", Head(chain(), "pay.ledger.2")); err != nil {
		t.Fatal(err)
	}
}

func TestTheSignatureCoversRunAndHead(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	head := Head(chain(), "pay.ledger.2")
	sig, err := Sign(key, "pay.ledger.2", head)
	if err != nil {
		t.Fatal(err)
	}
	if err := VerifySignature(key.Public(), "pay.ledger.2", head, sig); err != nil {
		t.Error(err)
	}
	if VerifySignature(key.Public(), "pay.ledger.3", head, sig) == nil || VerifySignature(key.Public(), "pay.ledger.2", Genesis("x"), sig) == nil ||
		VerifySignature(other.Public(), "pay.ledger.2", head, sig) == nil {
		t.Error("a signature was accepted for another run, head or key")
	}
}

func TestMeasureRecomputesFromTheChain(t *testing.T) {
	got, err := Measure(chain())
	if err != nil {
		t.Fatal(err)
	}
	want := Measured{Detect: 5210 * time.Millisecond, Fence: 50 * time.Millisecond, Promote: 840 * time.Millisecond,
		Route: 50 * time.Millisecond, RTO: 6150 * time.Millisecond, RPO: "0", Approvers: []string{"alice"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
	if _, err := Measure(chain()[:4]); err == nil || !strings.Contains(err.Error(), "Promoted") {
		t.Errorf("an unfinished run was measured: %v", err)
	}
}

func TestJoin(t *testing.T) {
	whole := chain()
	for name, tc := range map[string]struct {
		archived, recent []Record
		want             int // 0: joined
	}{
		"all of it is archived":               {archived: whole},
		"nothing of it is archived":           {recent: whole},
		"one goes on with the other":          {archived: whole[:2], recent: whole[2:]},
		"they overlap":                        {archived: whole[:4], recent: whole[2:]},
		"all that is recent is archived":      {archived: whole, recent: whole[4:]},
		"something is missing between them":   {archived: whole[:2], recent: whole[3:], want: 3},
		"the beginning is missing":            {recent: whole[1:], want: 1},
		"more is archived than the run knows": {archived: whole, recent: whole[2:4], want: 5},
		"an archived record was edited":       {archived: append(chain()[:3:3], Record{Text: "x"}), recent: whole[3:], want: 4},
		"a record was edited under its hash":  {archived: edited(3), recent: whole[2:], want: 4},
		"a number that is none":               {archived: whole, recent: []Record{{}}, want: 7},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Join("pay.ledger.2", tc.archived, tc.recent)
			var bad *BadRecord
			switch {
			case tc.want == 0 && (err != nil || Verify(got, "pay.ledger.2", Head(whole, "")) != nil):
				t.Errorf("%v, %v", err, got)
			case tc.want != 0 && (!errors.As(err, &bad) || bad.Sequence != tc.want):
				t.Errorf("got %v, want record %d", err, tc.want)
			}
		})
	}
}

// edited is the chain with another text in one record.
func edited(i int) []Record {
	c := chain()
	c[i].Text = "never"
	return c
}
