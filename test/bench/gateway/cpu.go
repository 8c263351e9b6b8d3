package gateway

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"tripod.dev/tripod/test/bench/load"
)

// tick is Linux's unit of processor time in /proc, everywhere.
const tick = 10 * time.Millisecond

// processor is the processor time that the process which carries a door takes for one
// request, in µs: what says most on a machine that others use as well.
func (c Config) processor(through *door) way {
	return way{through.name, func(ctx context.Context) (float64, error) {
		var asked atomic.Int64
		before, err := used(through.process)
		if err != nil {
			return 0, err
		}
		_, err = load.Load{Clients: 16, Duration: c.Duration, Do: func(ctx context.Context, _, _ int) error {
			asked.Add(1)
			return through.ask(ctx)
		}}.Run(ctx)
		if err != nil {
			return 0, err
		}
		after, err := used(through.process)
		return float64((after - before).Microseconds()) / float64(max(asked.Load(), 1)), err
	}}
}

// used is the processor time that a process has taken so far.
func used(process int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", process))
	if err != nil {
		return 0, fmt.Errorf("read the processor time of process %d: %w", process, err)
	}
	_, behind, _ := strings.Cut(string(text), ") ") // its name may hold spaces
	fields := strings.Fields(behind)
	if len(fields) < 13 {
		return 0, fmt.Errorf("read the processor time of process %d: /proc has %d fields, want 13 and more", process, len(fields))
	}
	user, err := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	return time.Duration(user+system) * tick, errors.Join(err, err2)
}
