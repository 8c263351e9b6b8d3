package fault

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	// furthestBack is less than how long before a round its certificates begin: their
	// validity is the one thing that the wall clock decides.
	furthestBack    = 50 * time.Minute
	furthestForward = 30 * 24 * time.Hour
)

// jump moves the wall clocks of some members, several times, each on its own, to and
// fro; Mend moves them back.
func jump(ctx context.Context, f *Fleet, random *rand.Rand) error {
	members := random.Perm(len(f.Members))[:1+random.IntN(len(f.Members))]
	for range 2 + random.IntN(4) {
		for _, i := range members {
			// As far as a lease, an hour or a month: each is another mistake.
			ahead := time.Duration(random.Int64N(int64([]time.Duration{10 * time.Second, time.Hour, furthestForward}[random.IntN(3)])))
			if random.IntN(2) == 0 {
				ahead = -min(ahead, furthestBack)
			}
			if err := f.Members[i].MoveWall(ahead); err != nil {
				return err
			}
		}
		rest(ctx, time.Duration(300+random.IntN(1200))*time.Millisecond)
	}
	return nil
}
