package fault

import (
	"context"
	"math/rand/v2"
	"time"
)

// defragment has some members rewrite their databases while they are used, and
// kills each, if asked to, at some moment of it.
func defragment(kills bool) doing {
	return func(ctx context.Context, f *Fleet, random *rand.Rand) error {
		for _, i := range random.Perm(len(f.Members))[:1+random.IntN(len(f.Members))] {
			m := f.Members[i]
			c, err := f.Client(m)
			if err != nil {
				return err
			}
			attempt, cancel := context.WithTimeout(ctx, 3*time.Second)
			done := make(chan struct{})
			go func() {
				defer close(done)
				_, _ = c.Defragment(attempt, m.URL()) // it may be refused: a snapshot is being written
			}()
			if kills {
				rest(ctx, time.Duration(random.IntN(30_000))*time.Microsecond)
				err = m.Kill()
			}
			<-done
			cancel()
			_ = c.Close()
			if err != nil || kills {
				return err
			}
		}
		return nil
	}
}
