package socket_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"tripod.dev/tripod/failover/driver"
	"tripod.dev/tripod/failover/driver/drivertest"
	"tripod.dev/tripod/failover/driver/socket"
)

// The test's program is the driver's too, in a process of its own.
const (
	pathVariable = "DRIVERTEST_SOCKET"
	nameVariable = "DRIVERTEST_NAME"
	dieVariable  = "DRIVERTEST_DIE_IN"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(pathVariable); path != "" {
		serve(path)
		return
	}
	goleak.VerifyTestMain(m)
}

func serve(path string) {
	listener, err := net.Listen("unix", path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	server := grpc.NewServer()
	socket.Register(server, &shelf{file: path + ".json", name: os.Getenv(nameVariable), die: os.Getenv(dieVariable)})
	_ = server.Serve(listener)
}

// shelf is a dataset that is one file: what it is is what is durable there. It
// kills its process between an effect and its answer where it is told to.
type shelf struct{ file, name, die string }

type stored struct {
	Epoch, Revision, Closed, Position, Promotions int64
	Role                                          driver.Role
	State                                         driver.State
}

func (s *shelf) load() (now stored) {
	now.Role, now.State = driver.RoleNone, driver.StateStopped
	if b, err := os.ReadFile(s.file); err == nil {
		_ = json.Unmarshal(b, &now)
	}
	return now
}

func (s *shelf) change(c driver.Call, verb string, do func(*stored) error) (driver.Observation, error) {
	now := s.load()
	if c.Epoch < now.Epoch || c.Epoch == now.Epoch && c.Revision != 0 && c.Revision < now.Revision {
		return driver.Observation{}, fmt.Errorf("epoch %d, seen %d: %w", c.Epoch, now.Epoch, driver.ErrOlder)
	}
	if c.Epoch > now.Epoch {
		now.Revision = 0
	}
	now.Epoch, now.Revision = c.Epoch, max(now.Revision, c.Revision)
	if err := do(&now); err != nil {
		return driver.Observation{}, err
	}
	b, err := json.Marshal(now)
	if err == nil {
		err = os.WriteFile(s.file, b, 0o600)
	}
	if s.die == verb {
		os.Exit(7)
	}
	return s.Observe(context.Background(), c.Dataset), err
}

func (s *shelf) Identity() driver.Identity { return driver.Identity{Name: s.name, Version: "1"} }

func (s *shelf) Observe(context.Context, driver.Dataset) driver.Observation {
	now := s.load()
	return driver.Observation{Role: now.Role, State: now.State, Epoch: now.Epoch, HeldEpoch: now.Promotions,
		Position: driver.Position{Text: "p", Bytes: now.Position, Timeline: 1}, Copy: driver.CopyWhole, HeldSyncSet: []string{"b"}, Guarded: true, GuardKnown: true}
}

func (s *shelf) Promote(_ context.Context, c driver.Call) (driver.Observation, error) {
	return s.change(c, "Promote", func(now *stored) error {
		if now.State == driver.StateClosed && c.Revision <= now.Closed {
			return fmt.Errorf("closed at %d: %w", now.Closed, driver.ErrRefused)
		}
		if now.State != driver.StateRunning {
			now.Promotions++
		}
		now.Role, now.State, now.Position = driver.RolePrimary, driver.StateRunning, 1
		return nil
	})
}

func (s *shelf) Demote(_ context.Context, c driver.Call) (driver.Observation, error) {
	return s.change(c, "Demote", func(now *stored) error {
		now.Role, now.State, now.Closed = driver.RoleNone, driver.StateClosed, c.Revision
		return nil
	})
}

func (s *shelf) Fence(_ context.Context, c driver.Call) (driver.Observation, error) {
	return s.change(c, "Fence", func(now *stored) error { now.Role, now.State = driver.RoleNone, driver.StateFenced; return nil })
}

func (s *shelf) SetSyncSet(_ context.Context, c driver.Call) (driver.Observation, error) {
	return s.change(c, "SetSyncSet", func(*stored) error { return nil })
}

func (s *shelf) Probe(_ context.Context, c driver.Call) (driver.Probed, error) {
	o, err := s.change(c, "Probe", func(*stored) error { return nil })
	return driver.Probed{Writable: o.State == driver.StateRunning, Listening: o.State == driver.StateRunning}, err
}

func (s *shelf) Resync(_ context.Context, c driver.Call, discard bool) (driver.Resynced, error) {
	if c.Primary == "" {
		return driver.Resynced{}, fmt.Errorf("nobody to follow: %w", driver.ErrRefused)
	}
	measured := driver.Resynced{Method: driver.MethodCopy, Divergence: driver.Divergence{Measured: true, Fork: "f", Bytes: 9, Commits: 3}, Observation: s.Observe(context.Background(), c.Dataset)}
	if !discard {
		return measured, &driver.Diverged{Dataset: c.Dataset.Key(), Divergence: measured.Divergence, Reason: "they may have been acknowledged"}
	}
	return measured, nil
}

// process runs the driver until the test kills it; it is waited for.
func process(t *testing.T, path, name, die string) (kill func()) {
	t.Helper()
	_ = os.Remove(path)
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), pathVariable+"="+path, nameVariable+"="+name, dieVariable+"="+die)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	killed := false
	kill = func() {
		if !killed {
			killed = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	t.Cleanup(kill)
	return kill
}

func client(t *testing.T, name, path string) *socket.Client {
	t.Helper()
	c, err := socket.New(name, path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// reached waits until the driver answers Check as want says.
func reached(t *testing.T, c *socket.Client, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for {
		err := c.Check(ctx)
		if want == "" && err == nil || want != "" && err != nil && strings.Contains(err.Error(), want) {
			return
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			t.Fatalf("the driver's check is %v, want %q", err, want)
		}
	}
}

var dataset = driver.Dataset{Namespace: "pay", Name: "shelf", Cluster: "a", Parameters: map[string]string{"k": "v"}}

func TestADriverBehindASocketConforms(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	kill := process(t, path, "shelf", "")
	c := client(t, "shelf", path)
	reached(t, c, "")
	drivertest.Run(context.Background(), t, drivertest.Rig{Driver: c, Name: "shelf", Dataset: dataset, Lapse: func() {
		kill()
		kill = process(t, path, "shelf", "")
	}})
	call := driver.Call{Epoch: 9, Dataset: dataset, Primary: "b", PrimaryAddress: "b:1"}
	r, err := c.Resync(context.Background(), call, false)
	var diverged *driver.Diverged
	if !errors.As(err, &diverged) || diverged.Divergence.Commits != 3 || r.Observation.Copy != driver.CopyWhole {
		t.Errorf("a divergence comes as %+v %v", r, err)
	}
	if r, err := c.Resync(context.Background(), call, true); err != nil || r.Method != driver.MethodCopy || r.Divergence.Fork != "f" {
		t.Errorf("an approved one comes as %+v %v", r, err)
	}
}

// A driver out of process is given no proof that runs out, so elapsed time stops nothing
// of it. One that says that it is guarded is not believed: the hub would promote another
// copy beside it.
func TestNoDriverBehindASocketCountsAsGuarded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	process(t, path, "shelf", "")
	c := client(t, "shelf", path)
	reached(t, c, "")
	promoted, err := c.Promote(context.Background(), driver.Call{Incarnation: 1, Epoch: 2, Revision: 5, Dataset: dataset, Primary: "a"})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []driver.Observation{promoted, c.Observe(context.Background(), dataset)} {
		if o.State != driver.StateRunning || o.Guarded || !o.GuardKnown {
			t.Errorf("it says that it is guarded, and is believed: %+v", o)
		}
	}
	if !c.Identity().Unfenced {
		t.Error("it counts as one with a fence")
	}
}

// The step has had its effect, and nobody was told: whoever asks again finds it done.
func TestADriverThatDiesInAStepIsAskedAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	kill := process(t, path, "shelf", "Promote")
	c := client(t, "shelf", path)
	reached(t, c, "")
	call := driver.Call{Incarnation: 1, Epoch: 2, Revision: 5, Dataset: dataset, Primary: "a"}
	_, err := c.Promote(context.Background(), call)
	if err == nil || errors.Is(err, driver.ErrRefused) || errors.Is(err, driver.ErrOlder) {
		t.Fatalf("a driver that died says %v, want what may be tried again", err)
	}
	if o := c.Observe(context.Background(), dataset); o.State != driver.StateUnknown || !strings.Contains(o.Message, "runs beside the agent") {
		t.Errorf("while it is away it is %+v", o)
	}
	kill()
	process(t, path, "shelf", "")
	reached(t, c, "")
	o, err := c.Promote(context.Background(), call)
	if err != nil || o.State != driver.StateRunning || o.Epoch != 2 || o.HeldEpoch != 1 {
		t.Errorf("asked again it is %+v %v: promoted %d times", o, err, o.HeldEpoch)
	}
}

// Another driver at the same socket is refused, also when it comes later.
func TestAnotherDriverAtTheSocketIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	kill := process(t, path, "shelf", "")
	c := client(t, "shelf", path)
	reached(t, c, "")
	kill()
	process(t, path, "drawer", "")
	reached(t, c, `calls itself "drawer"`)
	call := driver.Call{Incarnation: 1, Epoch: 2, Revision: 5, Dataset: dataset, Primary: "a"}
	if _, err := c.Promote(context.Background(), call); err == nil {
		t.Error("it was asked to promote")
	}
}
