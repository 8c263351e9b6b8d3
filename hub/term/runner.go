package term

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// Leadership is what this member knows about its own.
type Leadership struct {
	Term uint64
	// Leading is true while this member leads Term.
	Leading bool
}

// Runnable is work that exactly one member does: the leader, for one term.
type Runnable struct {
	Name string
	// Run works until ctx ends and returns when everything that it started has
	// ended. A return before that is a failure: it is called again, after a
	// pause, within the same term.
	Run func(ctx context.Context, term uint64) error
}

// RunnerConfig describes a Runner.
type RunnerConfig struct {
	// Subscribe returns a channel that always holds the newest leadership not
	// yet read, beginning with the present one, and is closed when ctx ends.
	Subscribe func(ctx context.Context) <-chan Leadership
	// Barrier returns when this leader has applied everything that was committed
	// before the call; it fails on a member that does not lead.
	Barrier func(ctx context.Context) error
	// Runnables in the order in which they are started; their end is waited for
	// in reverse.
	Runnables []Runnable
	// Patience is after how long a runnable that does not end is reported;
	// default 5 s.
	Patience time.Duration
	Logger   *slog.Logger
}

// Runner starts the runnables with each term of this member's leadership and
// stops them with it.
type Runner struct{ config RunnerConfig }

// NewRunner starts nothing before Run.
func NewRunner(config RunnerConfig) *Runner {
	if config.Patience == 0 {
		config.Patience = 5 * time.Second
	}
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	return &Runner{config: config}
}

// Run follows the leadership until ctx ends and returns when no runnable runs.
func (r *Runner) Run(ctx context.Context) error {
	leaderships := r.config.Subscribe(ctx)
	var present *reign
	defer func() { present.stop() }()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case l, ok := <-leaderships:
			if !ok {
				<-ctx.Done()
				return ctx.Err()
			}
			if l.Leading && present != nil && present.term == l.Term {
				continue
			}
			// Nothing of one term may run in the next.
			present.stop()
			present = nil
			if l.Leading {
				present = r.start(ctx, l.Term)
			}
		}
	}
}

// reign is one term of this member's leadership.
type reign struct {
	term   uint64
	cancel context.CancelFunc
	done   chan struct{}
}

func (g *reign) stop() {
	if g != nil {
		g.cancel()
		<-g.done
	}
}

func (r *Runner) start(ctx context.Context, term uint64) *reign {
	ctx, cancel := context.WithCancel(ctx)
	g := &reign{term: term, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(g.done)
		defer cancel()
		log := r.config.Logger.With("term", term)
		if err := r.barrier(ctx); err != nil {
			log.Info("term ended before its work began", "error", err)
			return
		}
		log.Info("leader work starts")
		r.reign(ctx, term, log)
		log.Info("leader work has ended")
	}()
	return g
}

// barrier is tried until the term ends: a leader that has not applied what the
// one before it acknowledged may decide nothing.
func (r *Runner) barrier(ctx context.Context) error {
	for {
		err := r.config.Barrier(ctx)
		if err == nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		r.config.Logger.Warn("leader barrier failed", "error", err)
		if !pause(ctx, 100*time.Millisecond) {
			return ctx.Err()
		}
	}
}

// reign starts all runnables in order. When ctx ends, all are told at once,
// because nothing of a term may act in the next, and waited for in reverse.
func (r *Runner) reign(ctx context.Context, term uint64, log *slog.Logger) {
	ended := make([]chan struct{}, len(r.config.Runnables))
	for i, runnable := range r.config.Runnables {
		ended[i] = make(chan struct{})
		go func() {
			defer close(ended[i])
			r.keep(ctx, runnable, term, log)
		}()
	}
	<-ctx.Done()
	for i := len(ended) - 1; i >= 0; i-- {
		timer := time.NewTimer(r.config.Patience)
		select {
		case <-ended[i]:
		case <-timer.C:
			log.Error("leader work does not end with its term; the next one waits for it", "runnable", r.config.Runnables[i].Name)
			<-ended[i]
		}
		timer.Stop()
	}
}

// keep calls a runnable again, with a growing pause, until ctx ends.
func (r *Runner) keep(ctx context.Context, runnable Runnable, term uint64, log *slog.Logger) {
	fresh := wait.Backoff{Duration: 100 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 1 << 30, Cap: 10 * time.Second}
	backoff := fresh
	for {
		started := time.Now()
		err := runnable.Run(ctx, term)
		if ctx.Err() != nil {
			return
		}
		if time.Since(started) > fresh.Cap {
			backoff = fresh
		}
		log.Error("leader work failed and is started again", "runnable", runnable.Name, "error", err)
		if !pause(ctx, backoff.Step()) {
			return
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
