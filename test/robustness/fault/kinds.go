package fault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"time"

	"tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/test/storefleet"
	"tripod.dev/tripod/test/storefleet/failpoint"
)

type doing = func(ctx context.Context, f *Fleet, random *rand.Rand) error

func kill(who target) doing {
	return func(ctx context.Context, f *Fleet, random *rand.Rand) error {
		m, err := who(ctx, f, random)
		if err != nil {
			return err
		}
		if err := m.Kill(); err != nil {
			return err
		}
		rest(ctx, between(random, 0, 1500))
		return nil
	}
}

func killMajority(ctx context.Context, f *Fleet, random *rand.Rand) error {
	var failed []error
	for _, i := range random.Perm(len(f.Members))[:len(f.Members)/2+1] {
		failed = append(failed, f.Members[i].Kill())
	}
	rest(ctx, between(random, 0, 1500))
	return errors.Join(failed...)
}

func killAll(_ context.Context, f *Fleet, random *rand.Rand) error {
	var failed []error
	for _, i := range random.Perm(len(f.Members)) {
		failed = append(failed, f.Members[i].Kill())
	}
	return errors.Join(failed...)
}

// end asks the leader to stop, as a supervisor would.
func end(ctx context.Context, f *Fleet, _ *rand.Rand) error {
	m, err := f.AwaitLeader(ctx)
	if err != nil {
		return err
	}
	f.endangered[m] = true
	if err := m.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-m.Exited():
		return nil
	case <-time.After(recovery):
		return fmt.Errorf("%s does not stop within %s", m.Name(), recovery)
	}
}

func moveLeadership(ctx context.Context, f *Fleet, random *rand.Rand) error {
	to, err := follower(ctx, f, random)
	if err != nil {
		return err
	}
	from, err := f.AwaitLeader(ctx)
	if err != nil || from == to {
		return err
	}
	c, err := f.Client(from)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	attempt, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	status, err := to.Status(attempt)
	if err == nil {
		// It may fail; then leadership stays or moves by itself.
		_, _ = c.MoveLeader(attempt, status.Header.MemberId)
	}
	rest(ctx, between(random, 200, 800))
	return nil
}

func pause(who target) doing {
	return func(ctx context.Context, f *Fleet, random *rand.Rand) error {
		m, err := who(ctx, f, random)
		if err != nil {
			return err
		}
		if err := m.Signal(syscall.SIGSTOP); err != nil {
			return err
		}
		rest(ctx, between(random, 300, 3500))
		return nil
	}
}

// pauseAndCut lets a leader wake up alone: it must not believe that it leads.
func pauseAndCut(ctx context.Context, f *Fleet, random *rand.Rand) error {
	m, err := f.AwaitLeader(ctx)
	if err != nil {
		return err
	}
	if err := m.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	rest(ctx, between(random, 1500, 3500))
	for _, other := range f.others(m) {
		f.Network.Cut(m.Name(), other.Name())
		f.Network.Cut(other.Name(), m.Name())
	}
	if err := m.Signal(syscall.SIGCONT); err != nil {
		return err
	}
	rest(ctx, between(random, 300, 1200))
	return nil
}

// cut holds up what the others send to a member (in), what it sends to them (out),
// or both; sometimes the connections break.
func cut(who target, in, out bool) doing {
	return func(ctx context.Context, f *Fleet, random *rand.Rand) error {
		m, err := who(ctx, f, random)
		if err != nil {
			return err
		}
		breaks := random.IntN(2) == 0
		for _, other := range f.others(m) {
			if in {
				f.Network.Cut(other.Name(), m.Name())
			}
			if out {
				f.Network.Cut(m.Name(), other.Name())
			}
			if breaks {
				f.Network.Reset(m.Name(), other.Name())
			}
		}
		rest(ctx, between(random, 300, 3500))
		return nil
	}
}

func cutPair(ctx context.Context, f *Fleet, random *rand.Rand) error {
	l, err := f.AwaitLeader(ctx)
	if err != nil {
		return err
	}
	other := f.others(l)[random.IntN(len(f.Members)-1)]
	f.Network.Cut(l.Name(), other.Name())
	f.Network.Cut(other.Name(), l.Name())
	rest(ctx, between(random, 500, 3500))
	return nil
}

func slow(who target) doing {
	return func(ctx context.Context, f *Fleet, random *rand.Rand) error {
		m, err := who(ctx, f, random)
		if err != nil {
			return err
		}
		for _, other := range f.others(m) {
			f.Network.Slow(m.Name(), other.Name(), between(random, 5, 150))
			f.Network.Slow(other.Name(), m.Name(), between(random, 5, 150))
		}
		rest(ctx, between(random, 500, 2500))
		return nil
	}
}

func reset(ctx context.Context, f *Fleet, random *rand.Rand) error {
	for range 3 + random.IntN(5) {
		a, b := random.IntN(len(f.Members)), random.IntN(len(f.Members))
		f.Network.Reset(f.Members[a].Name(), f.Members[b].Name())
		rest(ctx, between(random, 20, 300))
	}
	return nil
}

// fallBehind keeps a follower away until the log that it misses is gone.
func fallBehind(ctx context.Context, f *Fleet, random *rand.Rand) error {
	m, err := follower(ctx, f, random)
	if err != nil {
		return err
	}
	return f.lag(ctx, m, random)
}

func (f *Fleet) lag(ctx context.Context, m *storefleet.Member, random *rand.Rand) error {
	away := random.IntN(2) == 0
	if away {
		if err := m.Kill(); err != nil {
			return err
		}
	}
	for _, other := range f.others(m) {
		f.Network.Cut(m.Name(), other.Name())
		f.Network.Cut(other.Name(), m.Name())
	}
	rest(ctx, between(random, 3000, 4500))
	if away {
		return m.Start()
	}
	return nil
}

// crashInRestore kills a member that has fallen behind while it takes in the
// leader's snapshot.
func crashInRestore(ctx context.Context, f *Fleet, random *rand.Rand) error {
	m, err := follower(ctx, f, random)
	if err != nil {
		return err
	}
	at := []store.Point{store.BeforeRestore, store.DuringRestore, store.AfterRestore}[random.IntN(3)]
	if err := f.lag(ctx, m, random); err != nil {
		return err
	}
	if err := f.arm(ctx, m, failpoint.Arm{Point: at, Action: failpoint.Crash}); err != nil {
		return err
	}
	f.Network.Heal()
	f.awaitActed(ctx, m, at, failpoint.Crash, 3*time.Second)
	return nil
}

// point makes a member fail at a point that it passes within the next seconds.
func point(action failpoint.Action) doing {
	return func(ctx context.Context, f *Fleet, random *rand.Rand) error {
		m, err := []target{anyone, leader}[random.IntN(2)](ctx, f, random)
		if err != nil {
			return err
		}
		at := store.Points[random.IntN(len(store.Points))]
		for rare[at] {
			at = store.Points[random.IntN(len(store.Points))]
		}
		arm := failpoint.Arm{Point: at, Action: action, Skip: random.IntN(10)}
		if action == failpoint.Delay {
			arm.Times, arm.Delay = 1+random.IntN(5), between(random, 50, 800)
		}
		if at == store.BeforeCompact || at == store.AfterCompact || at == store.BeforeSnapshotSave ||
			at == store.DuringSnapshotSave || at == store.AfterSnapshotSave {
			arm.Skip = 0
		}
		if err := f.arm(ctx, m, arm); err != nil {
			return err
		}
		f.awaitActed(ctx, m, at, action, 3*time.Second)
		rest(ctx, between(random, 100, 1000))
		return nil
	}
}

// arm arms a point, when the member has opened its socket.
func (f *Fleet) arm(ctx context.Context, m *storefleet.Member, a failpoint.Arm) error {
	ctx, cancel := context.WithTimeout(ctx, recovery)
	defer cancel()
	f.endangered[m] = true
	for {
		err := Control(m).Arm(ctx, a)
		if err == nil || ctx.Err() != nil || !m.Running() {
			return err
		}
		rest(ctx, 20*time.Millisecond)
	}
}

// awaitActed waits until the point has acted, or for patience: it may not be
// reached.
func (f *Fleet) awaitActed(ctx context.Context, m *storefleet.Member, at store.Point, action failpoint.Action, patience time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for ctx.Err() == nil {
		done, err := Control(m).Done(ctx)
		if !m.Running() || err == nil && done[at] > 0 {
			f.Acted[fmt.Sprintf("%s %s", action, at)]++
			return
		}
		rest(ctx, 20*time.Millisecond)
	}
}
