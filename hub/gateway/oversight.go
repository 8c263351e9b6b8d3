package gateway

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericfilters "k8s.io/apiserver/pkg/server/filters"
)

// judgeInterval is how often open streams are judged again. With what a token
// stays good in a cache (2 s) and the ticks between, a right that was taken away
// is gone in less than 5 s.
const judgeInterval = 2 * time.Second

// Judge says whether a request would still be let through.
type Judge interface {
	// Credentials is the same for requests that showed the same.
	Credentials() string
	Allowed(ctx context.Context) bool
}

var errRevoked = errors.New("the right to this was taken away while it went on")

// overseen are the requests that last: watches, logs, and everything upgraded, of
// the hub, the view, clusters and applications alike.
type overseen struct {
	mu   sync.Mutex
	open map[*overseenStream]struct{}
}

type overseenStream struct {
	judge Judge
	// asks is the same for streams that are judged alike, given the credentials.
	asks string
	end  context.CancelCauseFunc
}

var lasts = genericfilters.BasicLongRunningRequestCheck(sets.NewString("watch", "proxy"), sets.NewString("attach", "exec", "proxy", "log", "portforward"))

// overseen returns r so that it ends when who asks for it may no longer, if it is
// one that lasts. done forgets it.
func (g *Routes) overseen(r *http.Request, as *reading) (overseen *http.Request, done func()) {
	if g.config.Again == nil || !g.lasts(r, as) {
		return r, func() {}
	}
	info, ok := request.RequestInfoFrom(r.Context())
	judge := g.config.Again(r.Context())
	if !ok || judge == nil {
		return r, func() {}
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	stream := &overseenStream{judge: judge, end: cancel, asks: info.Verb + " " + info.APIGroup + "/" + info.Resource + "/" + info.Subresource + " " + info.Namespace + "/" + info.Name}
	if !info.IsResourceRequest {
		stream.asks = info.Verb + " " + info.Path
	}
	g.overseer.mu.Lock()
	g.overseer.open[stream] = struct{}{}
	g.overseer.mu.Unlock()
	return r.WithContext(ctx), func() {
		g.overseer.mu.Lock()
		delete(g.overseer.open, stream)
		g.overseer.mu.Unlock()
		cancel(nil)
	}
}

// Passes tells what only passes through, to a cluster or an application: it does not
// last, nothing of it is still to be read, and it ends with its context.
func (g *Routes) Passes(r *http.Request) bool {
	reading := readingOf(r)
	return (reading.route.to == toCluster || reading.route.to == toApplication) && r.ContentLength == 0 && !g.lasts(r, reading)
}

func (g *Routes) lasts(r *http.Request, as *reading) bool {
	if as.upgrade {
		return true
	}
	info, ok := request.RequestInfoFrom(r.Context())
	if as.route.to == toCluster || as.route.to == toApplication {
		var err error
		info, err = as.innerInfo(r, g.inner)
		ok = err == nil
	}
	return ok && lasts(r, info)
}

// judgeAgain ends what would not be let through any more. Streams with the same
// credentials that ask for the same are judged once.
func (g *Routes) judgeAgain(ctx context.Context) {
	g.overseer.mu.Lock()
	alike := map[string][]*overseenStream{}
	for stream := range g.overseer.open {
		key := stream.asks + "\n" + stream.judge.Credentials()
		alike[key] = append(alike[key], stream)
	}
	g.overseer.mu.Unlock()
	for _, streams := range alike {
		if streams[0].judge.Allowed(ctx) || ctx.Err() != nil {
			continue
		}
		for _, stream := range streams {
			stream.end(errRevoked)
		}
		g.config.Logger.Info("streams end: who opened them may no longer have them", "streams", len(streams), "asked", streams[0].asks)
	}
}
