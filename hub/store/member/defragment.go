package member

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tripod.dev/tripod/hub/store"
)

// File is the database file of one member, as the leader sees it when it decides.
type File struct {
	Name   string
	Leader bool
	// Answers: it said just now how far it is.
	Answers bool
	// Behind is how many entries it has not applied yet.
	Behind uint64
	// Bytes is the size of the file, Used the part of it in use.
	Bytes, Used int64
	// Quiet: hardly anything was written since the leader looked last.
	Quiet bool
}

// HolesPolicy says what is worth rewriting a file for: more holes than both.
type HolesPolicy struct {
	// Share of the file, in percent; default 45.
	Share int64
	// Bytes; default 100 MiB.
	Bytes int64
	// Alone is how much may be in use in a hub of one member for it to be rewritten by
	// itself: everybody waits meanwhile, about a second per GiB; default 1 GiB.
	Alone int64
	// Quiet is up to how many revisions between two looks nothing much happens; default
	// 60, one a second.
	Quiet int64
}

// WithDefaults fills what is zero.
func (p HolesPolicy) WithDefaults() HolesPolicy {
	if p.Share == 0 {
		p.Share = 45
	}
	if p.Bytes == 0 {
		p.Bytes = 100 << 20
	}
	if p.Alone == 0 {
		p.Alone = 1 << 30
	}
	if p.Quiet == 0 {
		p.Quiet = 60
	}
	return p
}

func (p HolesPolicy) worth(f File) bool {
	holes := f.Bytes - f.Used
	return holes > p.Bytes && holes*100 > f.Bytes*p.Share
}

// lag is how many entries a member may lag while another rewrites its file.
const lag = 500

// complete says which member is missing: one is away while its file is rewritten,
// and with another one there might be no majority.
func complete(files []File) error {
	for _, f := range files {
		switch {
		case !f.Answers:
			return refused(fmt.Errorf("member %s does not answer, and no file is rewritten while a member is missing: bring it back, or remove it", f.Name))
		case f.Behind > lag:
			return refused(fmt.Errorf("member %s catches up, %d entries to go, and no file is rewritten meanwhile: wait", f.Name, f.Behind))
		}
	}
	return nil
}

// NextDefragmented decides whose file is rewritten next: the follower's with the
// most holes. If only the leader's is worth it, the leadership goes to the member
// to first, and the next leader rewrites it. A hub of one member is left alone.
// Both empty is nothing to do. It is a pure function.
func NextDefragmented(files []File, policy HolesPolicy) (name, to string) {
	policy = policy.WithDefaults()
	if complete(files) != nil {
		return "", ""
	}
	if len(files) == 1 {
		// Nobody serves meanwhile: so not long, and when nobody asks for much.
		if f := files[0]; f.Leader && policy.worth(f) && f.Used <= policy.Alone && f.Quiet {
			return f.Name, ""
		}
		return "", ""
	}
	sorted := slices.SortedFunc(slices.Values(files), func(a, b File) int {
		return cmp.Or(cmp.Compare(b.Bytes-b.Used, a.Bytes-a.Used), cmp.Compare(a.Name, b.Name))
	})
	leader := false
	for _, f := range sorted {
		switch {
		case f.Leader:
			leader = policy.worth(f)
		case policy.worth(f):
			return f.Name, ""
		default:
			to = f.Name
		}
	}
	if !leader {
		to = ""
	}
	return "", to
}

// DefragmenterConfig configures a Defragmenter.
type DefragmenterConfig struct {
	Store  *store.Store
	Policy HolesPolicy
	// Interval is how often the leader looks; default 1 min.
	Interval time.Duration
	// Patience is how long a member may take to say how far it is; default 1 s.
	Patience time.Duration
	// Limit is how long rewriting one file may take; default 10 min.
	Limit  time.Duration
	Logger *slog.Logger
}

// Defragmenter has the leader let the members rewrite their database files, one at
// a time, followers first, and never while a member is missing.
type Defragmenter struct {
	config  DefragmenterConfig
	members *store.Membership
	// acting: one file at a time. It guards what follows.
	acting sync.Mutex
	// revision of the last look; 0 before the first one as the leader.
	revision int64
	// waiting is why the file of a hub of one member is not rewritten by itself.
	waiting atomic.Pointer[string]
}

// Problem says that somebody must have the file rewritten; empty if nobody need.
func (d *Defragmenter) Problem() string {
	if why := d.waiting.Load(); why != nil {
		return *why
	}
	return ""
}

// NewDefragmenter does nothing until Run or Defragment.
func NewDefragmenter(config DefragmenterConfig) *Defragmenter {
	if config.Interval == 0 {
		config.Interval = time.Minute
	}
	if config.Patience == 0 {
		config.Patience = time.Second
	}
	if config.Limit == 0 {
		config.Limit = 10 * time.Minute
	}
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	return &Defragmenter{config: config, members: config.Store.Membership()}
}

// Run works whenever this member leads, until ctx ends.
func (d *Defragmenter) Run(ctx context.Context) error {
	ticker := time.NewTicker(d.config.Interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		if !d.config.Store.IsLeader() {
			d.forget()
			continue
		}
		if err := d.round(ctx); err != nil && ctx.Err() == nil {
			d.config.Logger.Warn("a database has holes and is not rewritten yet", "error", err)
		}
	}
}

// round lets at most one file be rewritten.
func (d *Defragmenter) round(ctx context.Context) error {
	d.acting.Lock()
	defer d.acting.Unlock()
	files := d.look(ctx)
	d.alone(files)
	name, to := NextDefragmented(files, d.config.Policy)
	switch {
	case to != "":
		d.config.Logger.Info("handing the leadership over, this member's database is to be rewritten", "peer", to)
		return d.members.Transfer(ctx, to)
	case name != "":
		return d.rewrite(ctx, name)
	}
	return nil
}

// forget what was seen as the leader.
func (d *Defragmenter) forget() {
	d.acting.Lock()
	defer d.acting.Unlock()
	d.revision = 0
	d.waiting.Store(nil)
}

// alone notes how much happens in a hub of one member, and says when its file waits
// for a person.
func (d *Defragmenter) alone(files []File) {
	policy := d.config.Policy.WithDefaults()
	before, now := d.revision, d.config.Store.Revision()
	d.revision = now
	d.waiting.Store(nil)
	if len(files) != 1 {
		return
	}
	files[0].Quiet = before > 0 && now-before <= policy.Quiet
	if f := files[0]; f.Answers && policy.worth(f) && f.Used > policy.Alone {
		why := fmt.Sprintf("the database file has %d MiB of which %d are in use, and the only member does not rewrite that much by itself: order it in a quiet hour, everybody waits for about %d s (tripodctl hub defragment %s)",
			f.Bytes>>20, f.Used>>20, max(f.Used>>30, 1), f.Name)
		d.waiting.Store(&why)
	}
}

// Defragment has one member rewrite its file, whatever holes it has. It works on
// the leader only (store.ErrNotLeader), and for the leader's own file (ErrIsLeader)
// only in a hub of one member: hand the leadership over first. ErrRefused says
// which member is missing.
func (d *Defragmenter) Defragment(ctx context.Context, name string) error {
	d.acting.Lock()
	defer d.acting.Unlock()
	if !d.config.Store.IsLeader() {
		return store.ErrNotLeader
	}
	files := d.look(ctx)
	if !slices.ContainsFunc(files, func(f File) bool { return f.Name == name }) {
		return refused(fmt.Errorf("%q is no member of this hub: `tripodctl hub members` lists them", name))
	}
	if err := complete(files); err != nil {
		return err
	}
	if name == d.members.Self() && len(files) > 1 {
		return ErrIsLeader
	}
	return d.rewrite(ctx, name)
}

func (d *Defragmenter) rewrite(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, d.config.Limit)
	defer cancel()
	start := time.Now()
	if err := d.members.Defragment(ctx, name); err != nil {
		return fmt.Errorf("rewrite the database of member %s: %w", name, err)
	}
	d.config.Logger.Info("a member's database was rewritten without holes", "peer", name, "took", time.Since(start))
	return nil
}

// look asks all members at once how far they are.
func (d *Defragmenter) look(ctx context.Context) []File {
	ctx, cancel := context.WithTimeout(ctx, d.config.Patience)
	defer cancel()
	members := d.members.List()
	files := make([]File, len(members))
	var asked sync.WaitGroup
	for i, m := range members {
		files[i] = File{Name: m.Name, Leader: m.Name == d.members.Self()}
		asked.Go(func() {
			standing, err := d.members.Standing(ctx, m.Name)
			if err != nil {
				return
			}
			files[i].Answers, files[i].Bytes, files[i].Used = true, standing.DatabaseBytes, standing.UsedBytes
			files[i].Behind = behind(d.members.Progress().AppliedIndex, standing.AppliedIndex)
		})
	}
	asked.Wait()
	return files
}
