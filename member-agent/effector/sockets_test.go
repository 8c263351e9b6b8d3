package effector_test

import (
	"context"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"tripod.dev/tripod/failover/driver"
	"tripod.dev/tripod/failover/driver/drivertest"
	"tripod.dev/tripod/failover/driver/socket"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// aside is PostgreSQL's driver as it would be out of process: its server can die, in
// the middle of a step too, and come again.
type aside struct {
	driver.Driver
	path   string
	server atomic.Pointer[grpc.Server]
	ended  chan struct{}
	// dies: the next promotion has its effect, and no answer.
	dies atomic.Bool
}

func (a *aside) Promote(ctx context.Context, c driver.Call) (driver.Observation, error) {
	o, err := a.Driver.Promote(ctx, c)
	if err == nil && a.dies.CompareAndSwap(true, false) {
		go a.server.Load().Stop() // waits for this call, which nobody hears any more
		<-ctx.Done()
	}
	return o, err
}

func (a *aside) start(t *testing.T) {
	t.Helper()
	listener, err := net.Listen("unix", a.path)
	must(t, err)
	server := grpc.NewServer()
	socket.Register(server, a)
	a.server.Store(server)
	ended := make(chan struct{})
	a.ended = ended
	go func() {
		defer close(ended)
		_ = server.Serve(listener)
	}()
}

func (a *aside) stop() {
	a.server.Load().Stop()
	<-a.ended
}

// PostgreSQL behind a socket is PostgreSQL in process, also when the process behind
// the socket dies with a promotion done and not answered.
func TestPostgreSQLBehindASocketConforms(t *testing.T) {
	f := newFleet(t, "north-1")
	f.commit(func() { f.primary, f.epoch, f.syncSet = "north-1", 1, []string{"north-1"} })
	f.powerOn("north-1")
	f.awaitGuard("north-1")
	a := &aside{Driver: f.centers["north-1"].effector.BuiltIn("postgresql"), path: filepath.Join(f.dir, "s")}
	a.start(t)
	t.Cleanup(func() { a.stop() })
	client, err := socket.New("postgresql", a.path)
	must(t, err)
	t.Cleanup(client.Close)

	a.dies.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	set := driver.Dataset{Namespace: dataset.GetNamespace(), Name: dataset.GetName(), Cluster: "north-1"}
	call := driver.Call{Incarnation: 1, Epoch: 1, Revision: 5, Dataset: set, Primary: "north-1", SyncSet: []string{"north-1"}}
	if _, err := client.Promote(ctx, call); err == nil {
		t.Fatal("the driver died, and its answer came")
	}
	if a.dies.Load() {
		t.Fatal("the promotion did not come to its end before the driver died")
	}
	<-a.ended
	a.start(t)
	drivertest.Run(ctx, t, drivertest.Rig{
		Driver: client, Name: "postgresql", Dataset: set,
		Grant: func(epoch int64, primary bool) {
			f.commit(func() { f.epoch, f.fencing = epoch, !primary })
			wait(t, 10*time.Second, "the guard has the role", func() bool {
				role := f.direct("north-1", agentv1.Verb_VERB_PROBE, 5*time.Second, nil)
				return role.GetOutcome() != agentv1.Outcome_OUTCOME_UNSPECIFIED
			})
		},
		Lapse: func() { a.stop(); a.start(t) },
	})
}
