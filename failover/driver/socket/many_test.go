package socket_test

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"

	"tripod.dev/tripod/failover/driver"
	"tripod.dev/tripod/failover/driver/socket"
	driverv1 "tripod.dev/tripod/proto/driver/v1"
)

// cellar observes each dataset as what it is called; one does not answer.
type cellar struct{ driver.Driver }

func (cellar) Identity() driver.Identity { return driver.Identity{Name: "cellar"} }
func (cellar) Observe(ctx context.Context, d driver.Dataset) driver.Observation {
	if d.Name == "stuck" {
		<-ctx.Done()
	}
	return driver.Observation{Role: driver.RoleReplica, State: driver.StateStreaming, Message: d.Name, Guarded: true}
}

// plain is a driver from before the call for many.
type plain struct {
	driverv1.UnimplementedDriverServer
}

func (plain) Identity(context.Context, *driverv1.IdentityRequest) (*driverv1.IdentityResponse, error) {
	return &driverv1.IdentityResponse{Name: "cellar", Protocol: socket.Protocol}, nil
}

// behind serves what register adds at a socket, and returns a client and how often it
// was asked for many.
func behind(t *testing.T, register func(grpc.ServiceRegistrar)) (*socket.Client, *atomic.Int64) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	if register != nil {
		listener, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		asked := &atomic.Int64{}
		server := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, r any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			if strings.HasSuffix(info.FullMethod, "/ObserveMany") {
				asked.Add(1)
			}
			return next(ctx, r)
		}))
		register(server)
		done := make(chan error, 1)
		go func() { done <- server.Serve(listener) }()
		t.Cleanup(func() { server.Stop(); <-done })
		return dial(t, path), asked
	}
	return dial(t, path), nil
}

func dial(t *testing.T, path string) *socket.Client {
	t.Helper()
	c, err := socket.New("cellar", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

var bottles = []driver.Dataset{{Namespace: "pay", Name: "red"}, {Namespace: "pay", Name: "stuck"}, {Namespace: "pay", Name: "white"}}

func TestManyAreObservedInOneCallAndNoneHoldsUpTheOthers(t *testing.T) {
	c, asked := behind(t, func(r grpc.ServiceRegistrar) { socket.Register(r, cellar{}) })
	all := c.ObserveMany(t.Context(), bottles)
	if len(all) != len(bottles) || all[1] != nil {
		t.Fatalf("got %v, want an answer for all but the one that is stuck", all)
	}
	for _, i := range []int{0, 2} {
		if o := all[i]; o == nil || o.Message != bottles[i].Name || o.State != driver.StateStreaming || o.Guarded {
			t.Errorf("%s is observed as %+v, want itself, streaming and not guarded", bottles[i].Name, o)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("the driver was asked %d times, want once", n)
	}
}

func TestADriverWithoutTheCallForManyIsNotAskedAgain(t *testing.T) {
	c, asked := behind(t, func(r grpc.ServiceRegistrar) { driverv1.RegisterDriverServer(r, plain{}) })
	for range 3 {
		for i, o := range c.ObserveMany(t.Context(), bottles) {
			if o != nil {
				t.Errorf("%s is observed as %+v, want it left to be asked for by itself", bottles[i].Name, o)
			}
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("the driver was asked %d times, want once", n)
	}
}

func TestOfADriverThatIsAwayNothingIsKnown(t *testing.T) {
	c, _ := behind(t, nil)
	for i, o := range c.ObserveMany(t.Context(), bottles) {
		if o == nil || o.State != driver.StateUnknown || o.Message == "" {
			t.Errorf("%s is observed as %+v, want Unknown and why", bottles[i].Name, o)
		}
	}
}
