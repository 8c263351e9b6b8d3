package headroom

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

func TestPercentage(t *testing.T) {
	const MiB = 1 << 20
	for _, c := range []struct {
		inUse uint64
		usual int
		want  int
	}{
		{80 * MiB, 100, 160},
		{128 * MiB, 100, 100},
		{4096 * MiB, 100, 100}, // never less than Go's own rule
		{80 * MiB, 200, 200},
		{2 * MiB, 100, most}, // a small heap is not let grow by all of it at once
		{0, 100, most},
	} {
		if got := percentage(128*MiB, c.usual, c.inUse); got != c.want {
			t.Errorf("with %d MiB in use and GOGC=%d: %d %%, want %d", c.inUse/MiB, c.usual, got, c.want)
		}
	}
}

// TestTheCollectorFollowsWhatIsInUse: after the heap has grown, Go's own rule holds
// again, and at the end GOGC is what it was.
func TestTheCollectorFollowsWhatIsInUse(t *testing.T) {
	before := debug.SetGCPercent(150)
	defer debug.SetGCPercent(before)
	stop := Follow(64 << 20)
	small := hold(20 << 20)
	await(t, "with 20 MiB in use", func(percent uint64) bool { return percent > 200 && percent < most })
	large := hold(100 << 20)
	await(t, "with 120 MiB in use", func(percent uint64) bool { return percent == 150 })
	runtime.KeepAlive(small)
	runtime.KeepAlive(large)
	stop()
	if now := percent(); now != 150 {
		t.Errorf("at the end GOGC is %d, want the 150 that it was", now)
	}
	runtime.GC()
	runtime.GC() // finds what was armed
	if now := percent(); now != 150 {
		t.Errorf("after the end GOGC is %d, want the 150 that it was", now)
	}
}

func hold(bytes int) []byte { return make([]byte, bytes) }

func percent() uint64 {
	sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// await collects until the percentage is as wanted: what follows a collection comes a
// little after it.
func await(t *testing.T, when string, wanted func(percent uint64) bool) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for end := time.Now().Add(30 * time.Second); !wanted(percent()); <-ticker.C {
		if time.Now().After(end) {
			t.Fatalf("%s GOGC is %d", when, percent())
		}
		runtime.GC()
	}
}
