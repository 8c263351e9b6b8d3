package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	raftlogv1 "tripod.dev/tripod/proto/raftlog/v1"
	"tripod.dev/tripod/test/robustness/traffic"
	"tripod.dev/tripod/test/robustness/validate"
	"tripod.dev/tripod/test/storefleet"
)

// The two programs of an upgrade are one that is told to understand less. What it
// then announces, writes and refuses is what the older one would.
const (
	oldLevel, newLevel     = 1, 2
	oldVersion, newVersion = "v0.1.0", "v0.2.0"
)

// without bounds how long the members that run may be without an answer: an
// election, with room for a machine that has much to do.
const without = 20 * time.Second

// upgrade is a fleet whose members are replaced one by one while clients work.
type upgrade struct {
	fleet *storefleet.Fleet

	mu        sync.Mutex
	installed map[string]uint32
}

// playUpgrade replaces three members under traffic, goes back with one on the way
// and tries to after the level was raised. The error says what an operator was
// promised and did not get.
func playUpgrade(ctx context.Context, program, folder string) (err error) {
	u := &upgrade{installed: map[string]uint32{"m0": oldLevel, "m1": oldLevel, "m2": oldLevel}}
	u.fleet, err = storefleet.Start(ctx, storefleet.Ours{Program: program, Configure: u.configure}, 3, folder)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, u.fleet.Stop()) }()
	clients, err := traffic.Start(ctx, u.fleet, 1)
	if err != nil {
		return err
	}
	if err := u.steps(ctx); err != nil {
		clients.Stop()
		return err
	}
	settled, cancel := context.WithTimeout(ctx, settling)
	defer cancel()
	history, err := clients.Finish(settled)
	if err != nil {
		return err
	}
	for _, v := range validate.Check(history, searching) {
		err = errors.Join(err, errors.New(v.String()))
	}
	if counts := traffic.Counts(history); counts["put done"] == 0 || counts["watch event"] == 0 {
		err = errors.Join(err, fmt.Errorf("hardly anything was done: %v", counts))
	}
	return err
}

func (u *upgrade) configure(c *storefleet.MemberConfig) {
	u.mu.Lock()
	defer u.mu.Unlock()
	c.Understands, c.Version = u.installed[c.Name], oldVersion
	if c.Understands == newLevel {
		c.Version = newVersion
	}
	// Often, so that members come back by snapshots too.
	c.Tuning = storefleet.Tuning{SnapshotThreshold: 100, TrailingLogs: 20, SnapshotInterval: 300 * time.Millisecond, SegmentBytes: 64 << 10, SpaceReserve: 16 << 20}
}

func (u *upgrade) steps(ctx context.Context) error {
	m := u.fleet.Members
	for _, step := range []func() error{
		func() error { return u.install(ctx, m[0], newLevel) },
		func() error { return u.stays(ctx, m[0], "m1 runs v0.1.0, which understands level 1; m2 runs v0.1.0") },
		func() error { return u.install(ctx, m[1], newLevel) },
		func() error { return u.stays(ctx, m[1], "m2 runs v0.1.0, which understands level 1") },
		// Second thoughts.
		func() error { return u.install(ctx, m[0], oldLevel) },
		func() error { return u.stays(ctx, m[1], "m0 runs v0.1.0") },
		func() error { return u.install(ctx, m[0], newLevel) },
		func() error { return u.stays(ctx, m[0], "m2 runs v0.1.0") },
		func() error { return u.install(ctx, m[2], newLevel) },
		func() error { return u.raised(ctx) },
		func() error { return u.refused(ctx, m[0]) },
		func() error { return u.install(ctx, m[0], newLevel) },
		func() error { return u.raised(ctx) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// install ends a member as systemd does, works with the other two, and starts it
// with a program that understands level.
func (u *upgrade) install(ctx context.Context, m *storefleet.Member, level uint32) error {
	if err := u.replace(ctx, m, level); err != nil {
		return err
	}
	if err := m.AwaitReady(ctx); err != nil {
		return err
	}
	return m.AwaitStanding(ctx, "it announces what it understands", func(s *raftlogv1.StandingResponse) bool { return s.GetCommandVersion() == level })
}

func (u *upgrade) replace(ctx context.Context, m *storefleet.Member, level uint32) error {
	if m.Running() {
		if err := m.Signal(syscall.SIGTERM); err != nil {
			return err
		}
		<-m.Exited()
	}
	if err := m.Kill(); err != nil {
		return err
	}
	if err := u.serves(ctx); err != nil {
		return fmt.Errorf("while %s is away: %w", m.Name(), err)
	}
	u.mu.Lock()
	u.installed[m.Name()] = level
	u.mu.Unlock()
	return m.Start()
}

// serves writes and reads through every member that runs; none of them may have
// ended by itself.
func (u *upgrade) serves(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, without)
	defer cancel()
	for _, m := range u.fleet.Members {
		if m.Ended() {
			log, err := m.Log()
			return errors.Join(fmt.Errorf("%s has ended: %s", m.Name(), log), err)
		}
		if !m.Running() {
			continue
		}
		c, err := u.fleet.Client(m)
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		if err := u.writeAndRead(ctx, m, c); err != nil {
			return err
		}
	}
	return nil
}

// writeAndRead goes through one member. What is put has no key that the traffic
// knows, and is gone again: the watchers of everything see only what was asked for.
func (u *upgrade) writeAndRead(ctx context.Context, m *storefleet.Member, c *clientv3.Client) error {
	for {
		// The compare is always false: a write through the log that changes nothing.
		_, err := c.Txn(ctx).If(clientv3.Compare(clientv3.Version("none"), ">", 1)).Then(clientv3.OpPut("none", "x")).Commit()
		if err == nil {
			_, err = c.Get(ctx, "none")
		}
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s does not take writes and reads: %w", m.Name(), err)
		}
	}
}

// stays: when leader leads and has asked everybody, the level is the old one
// everywhere, because of what it says.
func (u *upgrade) stays(ctx context.Context, leader *storefleet.Member, because string) error {
	if err := u.lead(ctx, leader); err != nil {
		return err
	}
	if err := leader.AwaitStanding(ctx, "it waits because "+because, func(s *raftlogv1.StandingResponse) bool {
		return strings.Contains(s.GetLevelWaits(), because) || len(s.GetRaisedAt()) > 0
	}); err != nil {
		return err
	}
	for _, m := range u.fleet.Members {
		standing, err := m.Standing(ctx)
		if err != nil {
			return err
		}
		if n := len(standing.GetRaisedAt()); n > 0 {
			return fmt.Errorf("the level was raised on %s although %s", m.Name(), because)
		}
	}
	return u.serves(ctx)
}

// lead moves the leadership.
func (u *upgrade) lead(ctx context.Context, to *storefleet.Member) error {
	ctx, cancel := context.WithTimeout(ctx, settling)
	defer cancel()
	for ctx.Err() == nil {
		leader, err := u.fleet.AwaitLeader(ctx)
		if err != nil {
			return err
		}
		if leader == to {
			return nil
		}
		if err := u.move(ctx, leader, to); err != nil && ctx.Err() != nil {
			return err
		}
	}
	return fmt.Errorf("%s does not lead", to.Name())
}

func (u *upgrade) move(ctx context.Context, from, to *storefleet.Member) error {
	status, err := to.Status(ctx)
	if err != nil {
		return err
	}
	c, err := u.fleet.Client(from)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if _, err := c.MoveLeader(ctx, status.Header.MemberId); err != nil {
		return fmt.Errorf("move the leadership to %s: %w", to.Name(), err)
	}
	return nil
}

// raised: the new level comes into force everywhere by itself.
func (u *upgrade) raised(ctx context.Context) error {
	for _, m := range u.fleet.Members {
		if err := m.AwaitStanding(ctx, "the level was raised", func(s *raftlogv1.StandingResponse) bool {
			return len(s.GetRaisedAt()) == newLevel-oldLevel
		}); err != nil {
			return err
		}
	}
	return u.serves(ctx)
}

// refused: the old program does not run any more, and says what to do.
func (u *upgrade) refused(ctx context.Context, m *storefleet.Member) error {
	if err := u.replace(ctx, m, oldLevel); err != nil {
		return err
	}
	select {
	case <-m.Exited():
	case <-time.After(settling):
		return fmt.Errorf("%s runs with the old program after the level was raised", m.Name())
	}
	log, err := m.Log()
	if err != nil {
		return err
	}
	for _, text := range []string{`member "m0" understands the command set up to level 1`, "of level 2", "install the tripod-hub that the other members run"} {
		if !strings.Contains(log, text) {
			return fmt.Errorf("the old program ends without %q in its log: %s", text, log)
		}
	}
	return nil
}
