package effector

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"tripod.dev/tripod/failover/driver"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// asserting is a driver without a guard that says of its copy what it is told to.
type asserting struct {
	driver.Driver
	state  driver.State
	stop   func()
	fenced bool
}

func (a *asserting) Identity() driver.Identity {
	return driver.Identity{Name: "shelf", Version: "1", Unfenced: true}
}

func (a *asserting) Observe(ctx context.Context, _ driver.Dataset) driver.Observation {
	if a.state == driver.StateUnknown {
		<-ctx.Done() // a driver that hangs
	}
	if a.state == driver.StateStreaming {
		return driver.Observation{Role: driver.RoleReplica, State: a.state}
	}
	return driver.Observation{Role: driver.RolePrimary, State: a.state}
}

func (a *asserting) Fence(context.Context, driver.Call) (driver.Observation, error) {
	a.fenced = true
	a.state = driver.StateFenced // it believes itself
	a.stop()
	return driver.Observation{Role: driver.RoleNone, State: driver.StateFenced}, nil
}

// sockets is a network in which each IP answers a connection with what its function
// says.
type sockets map[string]func() error

func (s sockets) prober(names map[string][]string) prober {
	return prober{
		resolve: func(_ context.Context, host string) ([]netip.Addr, error) {
			if ip, err := netip.ParseAddr(host); err == nil {
				return []netip.Addr{ip}, nil
			}
			var ips []netip.Addr
			for _, ip := range names[host] {
				ips = append(ips, netip.MustParseAddr(ip))
			}
			if len(ips) == 0 {
				return nil, fmt.Errorf("lookup %s: no such host", host)
			}
			return ips, nil
		},
		dial: func(ctx context.Context, _, address string) (net.Conn, error) {
			if err := s[address](); err != nil {
				if errors.Is(err, context.DeadlineExceeded) {
					<-ctx.Done()
				}
				return nil, err
			}
			here, there := net.Pipe()
			_ = there.Close()
			return here, nil
		},
	}
}

func accepts() error { return nil }
func refuses() error { return &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED} }
func silent() error  { return context.DeadlineExceeded }
func noRoute() error { return &net.OpError{Op: "dial", Net: "tcp", Err: syscall.EHOSTUNREACH} }

// What a fence of a driver without a guard is worth, by what the agent's own dials meet
// before and after it.
func TestAFenceIsWorthWhatTheAgentFinds(t *testing.T) {
	const a, b = "10.0.0.1:7000", "10.0.0.2:7000"
	one := map[string]func() error{}
	for name, tc := range map[string]struct {
		address       string
		state         driver.State
		before, after map[string]func() error
		want          string // of the error; empty if it is a fence
		says          string // the proof
	}{
		"it accepted, and refuses":            {a, driver.StateRunning, at(one, a, accepts), at(one, a, refuses), "", "5 connections of the agent's own to 10.0.0.1:7000 were refused, and one was accepted before"},
		"it accepts still":                    {a, driver.StateRunning, at(one, a, accepts), at(one, a, accepts), "10.0.0.1:7000 accepts connections: stop it there", ""},
		"it comes back":                       {a, driver.StateRunning, at(one, a, accepts), at(one, a, late(4, refuses, accepts)), "accepts connections", ""},
		"it is not to be reached any more":    {a, driver.StateRunning, at(one, a, accepts), at(one, a, silent), "neither accepts connections nor refuses them", ""},
		"nor later":                           {a, driver.StateRunning, at(one, a, accepts), at(one, a, late(4, refuses, noRoute)), "no route to host", ""},
		"it had stopped before":               {a, driver.StateStopped, at(one, a, refuses), at(one, a, refuses), "", "nobody accepted one before"},
		"nobody knows what it did before":     {a, driver.StateUnknown, at(one, a, refuses), at(one, a, refuses), "", "nobody accepted one before"},
		"it runs elsewhere":                   {a, driver.StateRunning, at(one, a, refuses), at(one, a, refuses), "correct spec.members[].address of cluster north-1", ""},
		"a replica runs elsewhere":            {a, driver.StateStreaming, at(one, a, noRoute), at(one, a, refuses), "correct spec.members[].address of cluster north-1", ""},
		"it was just started":                 {a, driver.StateRunning, at(one, a, late(1, refuses, accepts)), at(one, a, refuses), "", "one was accepted before"},
		"it has no address":                   {"", driver.StateRunning, one, one, "give the member of cluster north-1 an address", ""},
		"its address is none":                 {"10.0.0.1", driver.StateStopped, one, one, "missing port", ""},
		"nobody knows its name":               {"none:7000", driver.StateStopped, one, one, "no such host", ""},
		"its name has two addresses, stopped": {"two:7000", driver.StateRunning, at(at(one, a, accepts), b, accepts), at(at(one, a, refuses), b, refuses), "", "two:7000 were refused"},
		"the second of them accepts":          {"two:7000", driver.StateRunning, at(at(one, a, refuses), b, accepts), at(at(one, a, refuses), b, accepts), "accepts connections", ""},
		"the first of them is silent":         {"two:7000", driver.StateRunning, at(at(one, a, accepts), b, accepts), at(at(one, a, noRoute), b, refuses), "no route to host", ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				found := sockets(tc.before)
				drv := &asserting{state: tc.state}
				drv.stop = func() {
					for k, does := range tc.after {
						found[k] = does
					}
				}
				e := &Effector{cfg: Config{Cluster: "north-1"}, sites: map[key]*site{}, probe: found.prober(map[string][]string{"two": {"10.0.0.1", "10.0.0.2"}})}
				d := &agentv1.Directive{Epoch: 2, Dataset: &agentv1.DatasetKey{Namespace: "pay", Name: "shelf"}, Verb: agentv1.Verb_VERB_FENCE, DeadlineMillis: 30_000}
				role := &agentv1.RoleGrant{Dataset: d.GetDataset(), Address: tc.address}
				s := e.site(keyOf(d.GetDataset()))
				began := time.Now()
				w := e.witness(t.Context(), s, drv, role)
				o, err := drv.Fence(t.Context(), driver.Call{})
				seen, message, err := w.stopped(t.Context(), o, "stopped", err)
				switch {
				case tc.want == "" && (err != nil || seen == nil || !strings.Contains(message, tc.says)):
					t.Errorf("it is no fence: %v, said %q", err, message)
				case tc.want != "" && (err == nil || seen != nil || errors.Is(err, driver.ErrRefused)):
					t.Errorf("it is one: %q, or final: %v", message, err)
				case tc.want != "" && (!strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "dataset pay/shelf") || !strings.Contains(err.Error(), tc.address)):
					t.Errorf("it says %q, want %q", err, tc.want)
				}
				if took := time.Since(began); took > 5*time.Second || !drv.fenced {
					t.Errorf("fenced: %t, in %v", drv.fenced, took)
				}
			})
		})
	}
}

// at is a network with one more address in it.
func at(others map[string]func() error, address string, does func() error) map[string]func() error {
	all := map[string]func() error{address: does}
	for k, does := range others {
		all[k] = does
	}
	return all
}

// late does one thing n times, and then another.
func late(n int, first, then func() error) func() error {
	return func() error {
		if n--; n >= 0 {
			return first()
		}
		return then()
	}
}

// An address that nobody answered at while the copy ran is not believed at the next
// attempt either, when the driver believes in its fence; until somebody answers there.
func TestAnAddressThatLedNowhereIsNotForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const address = "10.0.0.1:7000"
		found := sockets{address: refuses}
		drv := &asserting{state: driver.StateRunning, stop: func() {}}
		e := &Effector{cfg: Config{Cluster: "north-1"}, sites: map[key]*site{}, probe: found.prober(nil)}
		role := &agentv1.RoleGrant{Dataset: &agentv1.DatasetKey{Namespace: "pay", Name: "shelf"}, Address: address}
		s := e.site(keyOf(role.GetDataset()))
		fence := func() error {
			w := e.witness(t.Context(), s, drv, role)
			o, err := drv.Fence(t.Context(), driver.Call{})
			_, _, err = w.stopped(t.Context(), o, "", err)
			return err
		}
		for range 2 {
			if err := fence(); err == nil || !strings.Contains(err.Error(), "correct spec.members[].address") {
				t.Errorf("it is believed: %v", err)
			}
		}
		found[address] = accepts
		if err := fence(); err == nil || !strings.Contains(err.Error(), "accepts connections") {
			t.Errorf("it runs there, and is believed to have stopped: %v", err)
		}
		found[address] = refuses
		if err := fence(); err != nil {
			t.Errorf("it has stopped there: %v", err)
		}
	})
}

// A driver with a guard is believed: the guard has killed the process itself.
func TestWhatAGuardStopsIsNotDialled(t *testing.T) {
	e := &Effector{probe: sockets{}.prober(nil)}
	if w := e.witness(t.Context(), nil, guarded{}, &agentv1.RoleGrant{Address: "10.0.0.1:5432"}); w != nil {
		t.Errorf("it is dialled: %+v", w)
	}
}

type guarded struct{ driver.Driver }

func (guarded) Identity() driver.Identity { return driver.Identity{Name: "postgresql"} }
