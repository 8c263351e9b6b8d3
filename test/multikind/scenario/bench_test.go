package scenario

import (
	"bytes"
	"strings"
	"testing"
)

func TestFiguresOfTheBenchmark(t *testing.T) {
	var out bytes.Buffer
	s := samples{rto: []float64{5.1, 6, 5.5}, pause: []float64{0.5}}
	if err := emit(&out, append(s.figures(), figure{Bench: "failover/transfers-lost-or-double", Peer: "objective", Unit: "transfers", Better: "lower", Rounds: 3})...); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`{"bench":"failover/rto/p95","ours":6,"peer":"objective","theirs":8,"unit":"s","ratio":0.75,"better":"lower","rounds":3}`,
		`{"bench":"switchover/write-pause/p95","ours":0.5,"peer":"objective","theirs":2,"unit":"s","ratio":0.25,"better":"lower","rounds":1}`,
		`{"bench":"failover/transfers-lost-or-double","ours":0,`,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the figures lack %s:\n%s", want, &out)
		}
	}
	if got := percentile([]float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20}, 0.95); got != 19 {
		t.Errorf("the 95th percentile of 1 to 20 is %g", got)
	}
}
