package report

import (
	"strings"
	"testing"
)

func TestARowIsOneLineWithThreeDigits(t *testing.T) {
	var out strings.Builder
	r := Row{Bench: "store/put/3/c=16/256B", Ours: 12345.678, Peer: "etcd 3.6.8", Theirs: 9876.5, Unit: "op/s", Better: Higher}
	if err := r.Print(&out); err != nil {
		t.Fatal(err)
	}
	want := `{"bench":"store/put/3/c=16/256B","ours":12300,"peer":"etcd 3.6.8","theirs":9880,"unit":"op/s","ratio":1.25,"better":"higher"}` + "\n"
	if out.String() != want {
		t.Errorf("printed %s, want %s", out.String(), want)
	}
}

func TestAPeerThatDidNothingHasNoRatio(t *testing.T) {
	var out strings.Builder
	if err := (Row{Bench: "b", Ours: 0.0123456}).Print(&out); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), `"ours":0.0123,`) || !strings.Contains(out.String(), `"ratio":0,`) {
		t.Errorf("printed %s", out.String())
	}
}
