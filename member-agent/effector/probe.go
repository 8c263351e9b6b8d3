package effector

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"tripod.dev/tripod/failover/driver"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// An API that says "fenced" is not believed by itself (safety.md section 6). Where a
// guard of Tripod's has killed the database its word is that of whoever did it. A
// driver without one (driver.Identity.Unfenced) tells what something else has told it;
// so the agent looks for itself, from outside, at the address where clients and other
// copies reach the copy:
//
//	accepted           the copy runs, whatever the driver says
//	refused, each time the machine is there and nobody listens: stopped
//	anything else      proves nothing: who is cut off from here may serve others
//
// A refusal is worth something only if the address leads to the copy: nobody listens
// at a mistaken one, ever. So the agent looks before the stop, too. If nobody accepts
// there while the driver says that the copy runs, no later refusal is believed, until
// somebody has accepted at that address.
const (
	// probeDials is how many connections must be refused, and probeEvery the time
	// between two: something that is started again at once is not taken for stopped.
	probeDials = 5
	probeEvery = 200 * time.Millisecond
	// probeTimeout bounds one dial.
	probeTimeout = time.Second
)

// met is what a dial has met.
type met int

const (
	metNothing met = iota
	metListener
	metRefusal
)

// prober dials. Its fields are the network.
type prober struct {
	resolve func(ctx context.Context, host string) ([]netip.Addr, error)
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
}

func newProber() prober {
	return prober{
		resolve: func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		},
		dial: (&net.Dialer{Timeout: probeTimeout}).DialContext,
	}
}

// look dials every address that HOST:PORT stands for. It is metRefusal only if all of
// them refuse, and metListener if one accepts; the error says what else was found.
func (p prober) look(ctx context.Context, address string) (met, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return metNothing, err
	}
	ips, err := p.resolve(ctx, host)
	if err != nil {
		return metNothing, err
	}
	found := metRefusal
	var other error
	for _, ip := range ips {
		conn, err := p.dial(ctx, "tcp", net.JoinHostPort(ip.Unmap().String(), port))
		switch {
		case err == nil:
			_ = conn.Close()
			return metListener, nil
		case !errors.Is(err, syscall.ECONNREFUSED):
			found, other = metNothing, err
		}
	}
	if len(ips) == 0 {
		return metNothing, fmt.Errorf("%s has no address", host)
	}
	return found, other
}

// witness is the agent's own look at one copy that is to be stopped.
type witness struct {
	prober
	site    *site
	drv     driver.Driver
	dataset driver.Dataset
	address string
	seen    bool // somebody accepted there before
}

// witness returns nil for a copy that a guard of Tripod's stops. Otherwise it has
// looked at the copy before the stop.
func (e *Effector) witness(ctx context.Context, s *site, drv driver.Driver, role *agentv1.RoleGrant) *witness {
	if !drv.Identity().Unfenced {
		return nil
	}
	w := &witness{prober: e.probe, site: s, drv: drv, dataset: e.dataset(role), address: role.GetAddress()}
	if w.address == "" {
		return w
	}
	found, _ := w.look(ctx, w.address)
	if found != metListener && w.runs(ctx) {
		// It may have been started between the two looks.
		if found, _ = w.look(ctx, w.address); found != metListener {
			s.astray(w.address)
		}
	}
	if found == metListener {
		w.seen = true
		s.astray("")
	}
	return w
}

// runs is true for a copy that its driver says is running, in any role. A driver that
// does not answer in time holds up no stop.
func (w *witness) runs(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	o := w.drv.Observe(ctx, w.dataset)
	return o.State == driver.StateRunning || answersForItself(o)
}

// stopped is the answer to a directive that stops a copy: what the driver answered,
// and for one without a guard only if a look from outside confirms it. Nothing that a
// driver says is kept that is not believed.
func (w *witness) stopped(ctx context.Context, o driver.Observation, message string, err error) (*driver.Observation, string, error) {
	if err != nil || w == nil {
		return seen(o, err), message, err
	}
	proof, err := w.confirm(ctx)
	return seen(o, err), message + "; " + proof, err
}

// confirm returns how it is known that the copy has stopped, or an error: then it is
// not known, and may be asked again.
func (w *witness) confirm(ctx context.Context) (string, error) {
	switch {
	case w.address == "":
		return "", w.unproven("nothing says where to look for it: give the member of cluster %s an address in spec.members of the dataset, and see that no member of the hub is older than this agent", w.dataset.Cluster)
	case w.site.isAstray(w.address):
		return "", w.unproven("nobody accepted a connection at %s while the driver said that the copy runs, so that refusals there prove nothing: correct spec.members[].address of cluster %s, or what keeps the agent from it",
			w.address, w.dataset.Cluster)
	}
	every := time.NewTicker(probeEvery)
	defer every.Stop()
	for n := 1; ; n++ {
		found, err := w.look(ctx, w.address)
		switch {
		case found == metListener:
			return "", w.unproven("%s accepts connections: stop it there, and whatever starts it again", w.address)
		case found == metNothing:
			return "", w.unproven("%s neither accepts connections nor refuses them (%w), so it may serve others: stop what runs there, or bring it in reach of the agent", w.address, err)
		case n == probeDials:
			return w.proof(), nil
		}
		select {
		case <-every.C:
		case <-ctx.Done():
			return "", w.unproven("there was no time to look at %s: %w", w.address, ctx.Err())
		}
	}
}

func (w *witness) unproven(format string, a ...any) error {
	return fmt.Errorf("dataset %s: driver %s says that its copy in %s has stopped, which is not believed: "+format,
		append([]any{w.dataset.Key(), w.drv.Identity().Name, w.dataset.Cluster}, a...)...)
}

func (w *witness) proof() string {
	before := "nobody accepted one before, nor did the driver say that it ran"
	if w.seen {
		before = "one was accepted before"
	}
	return fmt.Sprintf("%d connections of the agent's own to %s were refused, and %s", probeDials, w.address, before)
}

// astray remembers the address of a copy that nobody reached it at while it ran; none
// when somebody did.
func (s *site) astray(address string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.elsewhere = address
}

func (s *site) isAstray(address string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.elsewhere == address
}
