package postgresql

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

const statsOutput = `first record is after 0/1500000, at 0/1501C48, skipping over 7240 bytes
WAL statistics between 0/1501C48 and 0/17595C8:
Type                                           N      (%)          Record size      (%)             FPI size      (%)        Combined size      (%)
----                                           -      ---          -----------      ---             --------      ---        -------------      ---
XLOG/CHECKPOINT_SHUTDOWN                       1 (  0.09)                  114 (  0.06)                    0 (  0.00)                  114 (  0.00)
Transaction/COMMIT                            10 (  0.95)                  967 (  0.53)                    0 (  0.00)                  967 (  0.04)
Transaction/ABORT                              4 (  0.95)                  967 (  0.53)                    0 (  0.00)                  967 (  0.04)
Transaction/PREPARE                            1 (  0.95)                  967 (  0.53)                    0 (  0.00)                  967 (  0.04)
Transaction/COMMIT_PREPARED                    2 (  0.95)                  967 (  0.53)                    0 (  0.00)                  967 (  0.04)
Heap/INSERT                                    7 (  0.66)                  777 (  0.43)                 3144 (  0.14)                 3921 (  0.16)
                                        --------                      --------                      --------                      --------
Total                                       1057                        182052 [7.45%]               2262320 [92.55%]              2444372 [100%]
`

func TestParseStats(t *testing.T) {
	got, err := parseStats(statsOutput)
	if err != nil {
		t.Fatal(err)
	}
	want := logStats{end: 0x17595C8, records: 1057, commits: 13}
	if diff := cmp.Diff(want, *got, cmp.AllowUnexported(logStats{})); diff != "" {
		t.Error(diff)
	}
	if got, err := parseStats(""); got != nil || err != nil {
		t.Errorf("no record gave %v, %v", got, err)
	}
}

func TestParseControl(t *testing.T) {
	text := `Database system identifier:           7710413847722283623
Latest checkpoint location:           0/17414F8
Latest checkpoint's REDO location:    0/17414C0
Latest checkpoint's TimeLineID:       1
Minimum recovery ending location:     0/5000000
Min recovery ending loc's timeline:   2
`
	got, err := parseControl(text)
	if err != nil {
		t.Fatal(err)
	}
	want := control{system: "7710413847722283623", timeline: 2, checkpoint: 0x17414F8, redo: 0x17414C0, recovered: 0x5000000}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(control{})); diff != "" {
		t.Error(diff)
	}
	if _, err := parseControl("nothing"); err == nil {
		t.Error("nothing was read as a control file")
	}
}

func TestSynchronous(t *testing.T) {
	for want, standbys := range map[string][]string{
		"":                            nil,
		`FIRST 1 ("north-2")`:         {"north-2"},
		`FIRST 2 ("a""b", "south-1")`: {`a"b`, "south-1"},
	} {
		if got := synchronous(standbys); got != want {
			t.Errorf("%v is %q, want %q", standbys, got, want)
		}
	}
}
