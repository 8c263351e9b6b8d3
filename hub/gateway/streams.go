package gateway

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// lookInterval is how often the places of applications with requests under
	// way are looked at.
	lookInterval = 250 * time.Millisecond
	// blindLimit is how long a request goes on while its application's place is
	// not known to this member, which then may be cut off from the hub.
	blindLimit = 10 * time.Second
)

// streams are the requests to applications that are under way.
type streams struct {
	mu   sync.Mutex
	open map[*stream]struct{}
}

type stream struct {
	voyage *voyage
	end    func()
}

type applicationName struct{ namespace, name string }

func newStreams() *streams { return &streams{open: map[*stream]struct{}{}} }

// follow has end called when the application is no longer where v goes. The
// result forgets v.
func (s *streams) follow(v *voyage, end func()) (forget func()) {
	followed := &stream{voyage: v, end: end}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[followed] = struct{}{}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.open, followed)
	}
}

func (s *streams) byApplication() map[applicationName][]*stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[applicationName][]*stream{}
	for followed := range s.open {
		name := applicationName{followed.voyage.namespace, followed.voyage.name}
		all[name] = append(all[name], followed)
	}
	return all
}

// Run ends requests to applications that have moved, and streams of who may not
// have them any more, until ctx ends.
func (g *Routes) Run(ctx context.Context) error {
	ticker := time.NewTicker(lookInterval)
	defer ticker.Stop()
	blind := map[applicationName]time.Time{} // since when a place is not known
	judged := time.Now()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		g.followApplications(ctx, blind)
		if time.Since(judged) >= judgeInterval {
			judged = time.Now()
			g.judgeAgain(ctx)
		}
	}
}

func (g *Routes) followApplications(ctx context.Context, blind map[applicationName]time.Time) {
	open := g.streams.byApplication()
	for name := range blind {
		if open[name] == nil {
			delete(blind, name)
		}
	}
	for name, followed := range open {
		at, err := g.locate(ctx, name.namespace, name.name, false)
		if err == nil || errors.Is(err, ErrNoSuchApplication) {
			delete(blind, name)
			g.endMoved(followed, at)
			continue
		}
		if blind[name].IsZero() {
			blind[name] = time.Now()
		}
		if time.Since(blind[name]) >= blindLimit {
			g.endMoved(followed, location{})
		}
	}
}

func (g *Routes) endMoved(followed []*stream, at location) {
	for _, f := range followed {
		if f.voyage.at.cluster != at.cluster || f.voyage.at.serial != at.serial {
			g.config.Logger.Debug("application moved: its request is ended", "application", f.voyage.namespace+"/"+f.voyage.name, "from", f.voyage.at.cluster, "to", at.cluster)
			f.end()
		}
	}
}
