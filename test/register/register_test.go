package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"tripod.dev/tripod/failover/driver"
	"tripod.dev/tripod/failover/driver/drivertest"
	"tripod.dev/tripod/test/freeport"
)

// running is one copy behind its control port.
type running struct {
	*register
	dir     string
	control *httptest.Server
}

func start(t *testing.T) *running {
	t.Helper()
	c := &running{dir: t.TempDir()}
	c.again(t, freeport.Addresses(t, 1)[0])
	t.Cleanup(func() { c.control.Close(); c.close() })
	return c
}

// again starts the program anew on the same volume.
func (c *running) again(t *testing.T, address string) {
	t.Helper()
	if c.register != nil {
		c.control.Close()
		c.close()
	}
	var err error
	if c.register, err = open(c.dir, address, beat); err != nil {
		t.Fatal(err)
	}
	c.control = httptest.NewServer(c.routes())
}

func (c *running) dataset(cluster string) driver.Dataset {
	return driver.Dataset{Namespace: "shelf", Name: "register", Cluster: cluster,
		Parameters: map[string]string{"control": strings.TrimPrefix(c.control.URL, "http://")}}
}

func TestARegisterConforms(t *testing.T) {
	c := start(t)
	set := c.dataset("a")
	drivertest.Run(t.Context(), t, drivertest.Rig{Driver: relay{}, Name: "register", Dataset: set, Address: c.address, Lapse: func() {
		c.again(t, c.address)
		set.Parameters["control"] = strings.TrimPrefix(c.control.URL, "http://")
	}})
}

// write is one client's try.
func (c *running) try(text string) string {
	conn, err := net.DialTimeout("tcp", c.address, time.Second)
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	fmt.Fprintln(conn, "WRITE "+text)
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(answer)
}

func await(t *testing.T, what string, met func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	every := time.NewTicker(10 * time.Millisecond)
	defer every.Stop()
	for !met() {
		select {
		case <-every.C:
		case <-ctx.Done():
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// A register waits with a write for the copies that it was told to wait for, obeys a fence
// when it does not lie, and a copy that was the primary gives up what nobody was told.
func TestARegisterMovesAndLosesNothing(t *testing.T) {
	a, b := start(t), start(t)
	ctx := t.Context()
	call := func(c *running, cluster string, epoch, revision int64, primary *running, name string, set ...string) driver.Call {
		return driver.Call{Incarnation: 1, Epoch: epoch, Revision: revision, Dataset: c.dataset(cluster), Primary: name, PrimaryAddress: primary.address, SyncSet: set}
	}
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	d := relay{}
	must(d.Promote(ctx, call(a, "a", 1, 1, a, "a", "a")))
	must(d.Resync(ctx, call(b, "b", 1, 2, a, "a"), false))
	must(d.SetSyncSet(ctx, call(a, "a", 1, 3, a, "a", "a", "b")))
	if o := d.Observe(ctx, a.dataset("a")); !slices.Equal(o.Acknowledges, []string{"b"}) || !slices.Equal(o.CaughtUp, []string{"b"}) || o.State != driver.StateRunning {
		t.Fatalf("it waits as %+v", o)
	}
	if o := d.Observe(ctx, b.dataset("b")); o.State != driver.StateStreaming || o.Role != driver.RoleReplica || o.LagBytes == nil {
		t.Fatalf("it follows as %+v", o)
	}
	for n := range 20 {
		if got := a.try(fmt.Sprint("w ", n)); !strings.HasPrefix(got, "OK ") {
			t.Fatalf("write %d: %s", n, got)
		}
	}
	if got := b.try("w x"); !strings.HasPrefix(got, "NO ") {
		t.Errorf("a replica says %q to a write", got)
	}
	a.mu.Lock()
	a.lying = true
	a.mu.Unlock()
	o, err := d.Fence(ctx, call(a, "a", 2, 4, b, "b"))
	if err != nil || o.State != driver.StateFenced || !strings.HasPrefix(a.try("w still"), "OK ") {
		t.Errorf("a lie is %+v %v", o, err)
	}
	a.mu.Lock()
	a.lying = false
	a.mu.Unlock()
	must(d.Fence(ctx, call(a, "a", 2, 4, b, "b")))
	if got := a.try("w late"); !strings.Contains(got, "refused") {
		t.Errorf("fenced, it says %q", got)
	}
	must(d.Promote(ctx, call(b, "b", 2, 5, b, "b", "b")))
	if held := b.all(); !slices.Contains(held, "w 19") || !slices.Contains(held, "w still") || !strings.HasPrefix(b.try("w new"), "OK ") {
		t.Errorf("the new primary holds %q", held)
	}
	a.mu.Lock()
	must(nil, a.writeLocked("w nobody was told"))
	a.mu.Unlock()
	r, err := d.Resync(ctx, call(a, "a", 2, 6, b, "b"), false)
	if err != nil || r.Divergence.Commits != 1 {
		t.Errorf("it returns as %+v %v", r, err)
	}
	await(t, "it has what the new primary has", func() bool { return slices.Equal(a.all(), b.all()) })
}

// What a former primary did not wait for its successor with may have been acknowledged.
func TestADivergedRegisterIsLeftAlone(t *testing.T) {
	a, b := start(t), start(t)
	d := relay{}
	for c, name := range map[*running]string{a: "a", b: "b"} {
		if _, err := d.Promote(t.Context(), driver.Call{Incarnation: 1, Epoch: 1, Dataset: c.dataset(name), Primary: name}); err != nil {
			t.Fatal(err)
		}
	}
	call := driver.Call{Incarnation: 1, Epoch: 2, Dataset: a.dataset("a"), Primary: "b", PrimaryAddress: b.address}
	before := a.all()
	var diverged *driver.Diverged
	if _, err := d.Resync(t.Context(), call, false); !errors.As(err, &diverged) || !slices.Equal(a.all(), before) {
		t.Errorf("it says %v", err)
	}
	if _, err := d.Resync(t.Context(), call, true); err != nil {
		t.Error(err)
	}
}
