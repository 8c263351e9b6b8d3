package member

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"tripod.dev/tripod/hub/store"
)

// stepsPerRound bounds what is done between two observations.
const stepsPerRound = 16

// Config of an Autopilot.
type Config struct {
	Store  *store.Store
	Policy Policy
	// Interval is how often the members are asked how far they are; default 1 s.
	Interval time.Duration
	// Patience is how long an answer may take; default 1 s. A member is silent
	// when it has not answered for three intervals.
	Patience time.Duration
	// PreferredCenter is where the leader should be; empty is anywhere.
	PreferredCenter string
	// PreferAfter is for how long a member of the preferred center must have been
	// healthy before leadership moves there; default 1 min.
	PreferAfter time.Duration
	Logger      *slog.Logger
}

// Autopilot is the leader's hand on the membership: it asks the members how far
// they are, promotes and removes them by Next, and does what operators ask for.
// On members that do not lead it only knows who is recorded. It is safe for
// concurrent use.
type Autopilot struct {
	config  Config
	members *store.Membership

	mu sync.Mutex
	// term of the leadership in which the health was observed.
	term    uint64
	health  map[string]*health
	waiting map[string]string
	// acting orders decisions with the steps that follow from them.
	acting sync.Mutex
}

// health is what a leader has observed of one member, by its monotonic clock.
type health struct {
	answered, caughtUp time.Time // zero: not yet in this term
	since              time.Time // of being observed
	standing           store.Standing
}

// NewAutopilot does nothing until Run.
func NewAutopilot(config Config) *Autopilot {
	if config.Interval == 0 {
		config.Interval = time.Second
	}
	if config.Patience == 0 {
		config.Patience = time.Second
	}
	if config.PreferAfter == 0 {
		config.PreferAfter = time.Minute
	}
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	config.Policy = config.Policy.WithDefaults()
	return &Autopilot{config: config, members: config.Store.Membership(), health: map[string]*health{}, waiting: map[string]string{}}
}

// Run works whenever this member leads, until ctx ends.
func (a *Autopilot) Run(ctx context.Context) error {
	ticker := time.NewTicker(a.config.Interval)
	defer ticker.Stop()
	for {
		if l := a.config.Store.Leadership(); l.Leading {
			a.round(ctx, l.Term)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// round observes once and carries out what follows, step by step.
func (a *Autopilot) round(ctx context.Context, term uint64) {
	a.observe(ctx, term)
	a.acting.Lock()
	defer a.acting.Unlock()
	if err := a.members.Reconcile(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrNotLeader) {
		a.config.Logger.Warn("the address book is not up to date yet", "error", err)
	}
	for range stepsPerRound {
		peers := a.peers(time.Now())
		step, waiting := Next(peers, a.config.Policy)
		a.mu.Lock()
		a.waiting = waiting
		a.mu.Unlock()
		if step == (Step{}) {
			break
		}
		if err := a.take(ctx, step); err != nil {
			if ctx.Err() == nil && !errors.Is(err, store.ErrNotLeader) {
				a.config.Logger.Warn("a change of the members did not succeed yet", "promote", step.Promote, "remove", step.Remove, "error", err)
			}
			return
		}
	}
	a.prefer(ctx)
}

func (a *Autopilot) take(ctx context.Context, step Step) error {
	switch {
	case step.Promote != "":
		if err := a.members.Promote(ctx, step.Promote); err != nil {
			return err
		}
		a.config.Logger.Info("member promoted to voter", "peer", step.Promote, "why", step.Why)
	case step.Remove == a.members.Self():
		// The next leader sees the same and goes on.
		a.config.Logger.Info("handing the leadership over to be removed", "why", step.Why)
		return a.members.Transfer(ctx, "")
	default:
		if err := a.members.Remove(ctx, step.Remove); err != nil {
			return err
		}
		a.config.Logger.Info("member removed", "peer", step.Remove, "why", step.Why)
	}
	return nil
}

// observe asks all members at once how far they are.
func (a *Autopilot) observe(ctx context.Context, term uint64) {
	ctx, cancel := context.WithTimeout(ctx, a.config.Patience)
	defer cancel()
	members := a.members.List()
	a.mu.Lock()
	if term != a.term {
		a.term, a.health = term, map[string]*health{}
	}
	a.mu.Unlock()
	var asked sync.WaitGroup
	for _, m := range members {
		asked.Go(func() {
			standing, err := a.members.Standing(ctx, m.Name)
			a.note(m.Name, standing, err, time.Now())
		})
	}
	asked.Wait()
}

func (a *Autopilot) note(name string, standing store.Standing, err error, now time.Time) {
	last := a.members.Progress().AppliedIndex
	a.mu.Lock()
	defer a.mu.Unlock()
	h := a.health[name]
	if h == nil {
		h = &health{since: now}
		a.health[name] = h
	}
	if err != nil {
		return
	}
	h.answered, h.standing = now, standing
	switch {
	case behind(last, standing.AppliedIndex) > a.config.Policy.MaxBehind:
		h.caughtUp = time.Time{}
	case h.caughtUp.IsZero():
		h.caughtUp = now
	}
}

func behind(last, applied uint64) uint64 {
	if applied >= last {
		return 0
	}
	return last - applied
}

// peers are the members with what was observed of them.
func (a *Autopilot) peers(now time.Time) []Peer {
	members := a.members.List()
	progress := a.members.Progress()
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []Peer
	for _, m := range members {
		p := Peer{Name: m.Name, Center: m.Center, Voter: m.Voter, Replaces: m.Replaces}
		h := a.health[m.Name]
		if h == nil {
			h = &health{since: now}
		}
		p.Alive = !h.answered.IsZero() && now.Sub(h.answered) <= 3*max(a.config.Interval, a.config.Patience)
		if !p.Alive {
			from := h.answered
			if from.IsZero() {
				from = h.since
			}
			p.Silent = now.Sub(from)
		}
		p.Behind = behind(progress.AppliedIndex, h.standing.AppliedIndex)
		if p.Alive && !h.caughtUp.IsZero() {
			p.Steady = now.Sub(h.caughtUp)
		}
		p.Unable = unable(m, h, progress.Incarnation, a.config.Store.Level())
		out = append(out, p)
	}
	return out
}

// unable says why a member can never have a vote as it is.
func unable(m store.MemberInfo, h *health, incarnation uint64, level uint32) string {
	switch {
	case h.answered.IsZero():
		return ""
	case h.standing.CommandVersion < level:
		return fmt.Sprintf("its tripod-hub is too old for the hub (it understands the command set up to level %d, and level %d is in force): upgrade %s",
			h.standing.CommandVersion, level, m.Name)
	case h.standing.Incarnation != 0 && h.standing.Incarnation != incarnation:
		return fmt.Sprintf("its data is of incarnation %d, the hub's of %d: stop it, empty its data folder, start it again", h.standing.Incarnation, incarnation)
	}
	return ""
}

// Waiting says what the promotion of a non-voter waits for; empty if unknown.
func (a *Autopilot) Waiting(name string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.waiting[name]
}

// Add lets a new member join as a non-voter. Leader only (store.ErrNotLeader).
func (a *Autopilot) Add(ctx context.Context, m store.Member, replaces string) error {
	return a.asked(ctx, func(peers []Peer) error {
		if err := CheckAdd(peers, m.Name, m.Center, replaces); err != nil {
			return err
		}
		return a.members.Add(ctx, m, replaces)
	})
}

// Promote gives a member its vote now. Leader only (store.ErrNotLeader).
func (a *Autopilot) Promote(ctx context.Context, name string) error {
	return a.asked(ctx, func(peers []Peer) error {
		if err := CheckPromote(peers, name, a.config.Policy); err != nil {
			return err
		}
		return a.members.Promote(ctx, name)
	})
}

// Remove takes a member out. Leader only (store.ErrNotLeader), and not the
// leader itself (ErrIsLeader).
func (a *Autopilot) Remove(ctx context.Context, name string, force bool) error {
	return a.asked(ctx, func(peers []Peer) error {
		if err := CheckRemove(peers, name, force); err != nil {
			return err
		}
		if name == a.members.Self() {
			return ErrIsLeader
		}
		return a.members.Remove(ctx, name)
	})
}

// Errors of a change of the membership.
var (
	// ErrIsLeader is returned when the member to be removed leads: another one must
	// remove it.
	ErrIsLeader = errors.New("the leader does not remove itself: hand the leadership over first (tripodctl hub transfer)")
	// ErrRefused is matched by the refusal of a change; the message says what to do
	// instead.
	ErrRefused = errors.New("refused")
)

type refusedError struct{ error }

func (refusedError) Is(target error) bool { return target == ErrRefused }

// asked does what an operator wants, on fresh observations and with no other
// change in between.
func (a *Autopilot) asked(ctx context.Context, do func([]Peer) error) error {
	leadership := a.config.Store.Leadership()
	if !leadership.Leading {
		return store.ErrNotLeader
	}
	a.observe(ctx, leadership.Term)
	a.acting.Lock()
	defer a.acting.Unlock()
	return do(a.peers(time.Now()))
}
