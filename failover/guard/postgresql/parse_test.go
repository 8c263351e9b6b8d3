package postgresql

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tripod.dev/tripod/failover/driver/postgresql/wal"
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

// pg_waldump is told where to begin and to end: by itself it reads nothing when the
// first file that it finds is one that was made beforehand.
func TestStretchOfTheLog(t *testing.T) {
	const size = 16 << 20
	files := []segment{{"000000030000000000000006", 3}, {"000000040000000000000006", 4}, {"000000040000000000000007", 4},
		{"000000040000000000000009", 4}, {"0000000500000001000000FF", 5}, {"000000050000000200000000", 5}}
	for name, tt := range map[string]struct {
		timeline    int64
		from        wal.LSN
		first, last string
	}{
		"to the last that follows":   {4, 0x6FE30A0, "000000040000000000000006", "000000040000000000000007"},
		"one timeline alone":         {3, 0x6000000, "000000030000000000000006", "000000030000000000000006"},
		"past four gigabytes":        {5, 0x1FF000028, "0000000500000001000000FF", "000000050000000200000000"},
		"nothing where no file is":   {4, 0x8000000, "", ""},
		"nothing of an unknown line": {6, 0x6000000, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			first, last, found := stretch(files, size, tt.timeline, tt.from)
			if first != tt.first || last != tt.last || found != (tt.first != "") {
				t.Errorf("got %q to %q (%t), want %q to %q", first, last, found, tt.first, tt.last)
			}
		})
	}
}

// What pg_waldump 15 prints of a timeline's first records.
const promoted = `rmgr: XLOG        len (rec/tot):     27/    27, tx:          0, lsn: 0/05000800, prev 0/05000788, desc: FPW_CHANGE true
rmgr: XLOG        len (rec/tot):     42/    42, tx:          0, lsn: 0/05000820, prev 0/05000800, desc: END_OF_RECOVERY tli 3; prev tli 2; time 2026-11-21 16:21:47.110000 UTC
rmgr: Standby     len (rec/tot):     50/    50, tx:          0, lsn: 0/05000850, prev 0/05000820, desc: RUNNING_XACTS nextXid 760 latestCompletedXid 759 oldestRunningXid 760
`

func TestThroughPromotion(t *testing.T) {
	for name, c := range map[string]struct {
		text     string
		timeline int64
		want     int
	}{
		"the record of the promotion is found": {promoted, 3, 2},
		"one of another timeline is not it":    {promoted, 4, 0},
		"a log that ends before it has none":   {strings.SplitAfter(promoted, "\n")[0], 3, 0},
		"what is no record of the log is none": {"pg_waldump: error: could not find a valid record after 0/5000800\n", 3, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if got := throughPromotion(c.text, c.timeline); got != c.want {
				t.Errorf("got %d records, want %d", got, c.want)
			}
		})
	}
}

// A tool that was killed says nothing about the log; files are removed on its word.
func TestEndsThere(t *testing.T) {
	for text, want := range map[string]bool{
		"pg_waldump: exit status 1: pg_waldump: error: could not find a valid record after 0/5000800":       true,
		"pg_waldump: exit status 1: pg_waldump: error: WAL segment size must be … header specifies 0 bytes": true,
		"pg_waldump: signal: killed: ":                                                             false,
		"start pg_waldump: fork/exec: resource temporarily unavailable":                            false,
		"pg_waldump: exit status 1: pg_waldump: error: could not open file \"0000\": No such file": false,
	} {
		if got := endsThere(errors.New(text)); got != want {
			t.Errorf("%s: %t, want %t", text, got, want)
		}
	}
	if endsThere(nil) {
		t.Error("no error is no end")
	}
}
