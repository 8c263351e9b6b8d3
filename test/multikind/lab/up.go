package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"tripod.dev/tripod/test/multikind/center"
	"tripod.dev/tripod/test/multikind/fault"
	"tripod.dev/tripod/test/multikind/image"
	"tripod.dev/tripod/test/multikind/network"
)

// Up makes the lab that config describes, or repairs it: cuts are healed, power is
// restored, dead processes are started and stopped ones go on. It returns when every
// part is ready. progress is called with one line at a time, never concurrently.
func Up(ctx context.Context, config Config, progress func(string)) (*Lab, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("multikind: a lab makes namespaces and cgroups; run it as root")
	}
	report := serially(progress)
	unlock, err := lock(ctx, config.StateRoot, config.Name, report)
	if err != nil {
		return nil, err
	}
	defer unlock()
	// Subnet numbers are given out one lab at a time.
	unlockIndex, err := lock(ctx, filepath.Join(config.StateRoot, cacheName), "index", report)
	if err != nil {
		return nil, err
	}
	l, err := create(config)
	unlockIndex()
	if err != nil {
		return nil, err
	}
	l.report = report
	return l, l.up(ctx)
}

func (l *Lab) up(ctx context.Context) error {
	if err := l.equip(ctx); err != nil {
		return err
	}
	if err := network.Build(l.plans); err != nil {
		return err
	}
	if _, err := l.inject(ctx, fault.Fault{Kind: fault.Heal}); err != nil {
		return err
	}
	if _, err := os.Stat(l.Kubeconfig()); err != nil || !l.state.Hub {
		// Before the hub exists, too: the clusters need it to boot.
		if err := l.writeKubeconfig(nil); err != nil {
			return err
		}
	}
	images := newImagery(l)
	group, groupCtx := errgroup.WithContext(ctx)
	if l.state.Nodes == NodesReal {
		group.Go(func() error { return images.make(groupCtx) })
	}
	for _, plan := range l.plans {
		group.Go(func() error {
			if err := l.bringUp(groupCtx, plan, images); err != nil {
				return fmt.Errorf("bring up %s: %w", plan.Name, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if !l.state.Hub {
		return nil
	}
	return l.upHub(ctx)
}

func (l *Lab) upHub(ctx context.Context) error {
	admin, err := l.awaitHub(ctx)
	if err != nil {
		return err
	}
	if err := l.writeKubeconfig(admin); err != nil {
		return err
	}
	if l.state.Nodes == NodesNone {
		return nil
	}
	return l.joinClusters(ctx)
}

// bringUp takes a center from any condition to ready.
func (l *Lab) bringUp(ctx context.Context, plan center.Plan, images *imagery) error {
	admin, err := plan.Prepare(l.path(plan.Name, "lib"))
	if err != nil {
		return err
	}
	cluster, err := newCluster(admin)
	if err != nil {
		return err
	}
	b, err := l.ensurePower(ctx, plan)
	if err != nil {
		return err
	}
	defer b.Close()
	if err := l.resume(b); err != nil {
		return err
	}
	if l.state.Hub {
		if err := l.startHub(ctx, b); err != nil {
			return err
		}
	}
	if l.state.Nodes == NodesReal {
		if err := l.ensure(ctx, b, plan.Runtime()); err != nil {
			return err
		}
	}
	if err := l.ensure(ctx, b, plan.ControlPlane()...); err != nil {
		return err
	}
	if err := cluster.awaitAPI(ctx, b); err != nil {
		return err
	}
	l.report(plan.Name + ": API server is ready")
	if err := l.ensure(ctx, b, plan.Controllers()...); err != nil {
		return err
	}
	if l.state.Nodes == NodesReal {
		if err := l.bringUpNode(ctx, b, cluster, images); err != nil {
			return err
		}
	}
	if err := cluster.awaitControllers(ctx, b, l.state.Nodes); err != nil {
		return err
	}
	l.report(plan.Name + ": cluster is ready")
	return nil
}

func (l *Lab) bringUpNode(ctx context.Context, b *box, cluster *cluster, images *imagery) error {
	replaced, err := images.load(ctx, b)
	if err != nil {
		return err
	}
	if err := l.ensure(ctx, b, b.plan.Node()...); err != nil {
		return err
	}
	// Applied while the kubelet starts.
	if err := l.applyBase(ctx, b.plan); err != nil {
		return err
	}
	if err := cluster.awaitNode(ctx, b); err != nil {
		return err
	}
	if err := cluster.renew(ctx, replaced); err != nil {
		return err
	}
	return cluster.awaitDNS(ctx, b)
}

// ensurePower returns the center's machine, booting it if it has no power. A machine
// whose first process does not answer is as good as off.
func (l *Lab) ensurePower(ctx context.Context, plan center.Plan) (*box, error) {
	b, err := l.findBox(ctx, plan)
	if err == nil && b != nil {
		if network.Connected(plan) {
			return b, nil
		}
		// A crash between the machine and its cable; the network inside is unfinished too.
		_ = b.Close()
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if _, _, err := l.powerOff(ctx, plan); err != nil {
		return nil, err
	}
	l.report(plan.Name + ": power on")
	return l.powerOn(ctx, plan)
}

// resume lets everything go on that a fault has stopped.
func (l *Lab) resume(b *box) error {
	pids, err := b.plan.Cgroup.Processes()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if stopped(pid) {
			if err := unix.Kill(pid, unix.SIGCONT); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("resume process %d: %w", pid, err)
			}
		}
	}
	return nil
}

// serially makes report safe for concurrent use; nil reports nothing.
func serially(report func(string)) func(string) {
	if report == nil {
		return func(string) {}
	}
	var mu sync.Mutex
	start := time.Now()
	return func(line string) {
		mu.Lock()
		defer mu.Unlock()
		report(fmt.Sprintf("%6.1fs  %s", time.Since(start).Seconds(), line))
	}
}

// imagery makes the lab's images while the centers boot.
type imagery struct {
	lab      *Lab
	done     chan struct{}
	archives []image.Archive
}

func newImagery(l *Lab) *imagery { return &imagery{lab: l, done: make(chan struct{})} }
