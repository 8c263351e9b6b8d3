package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"tripod.dev/tripod/test/multikind/center"
	"tripod.dev/tripod/test/multikind/fault"
	"tripod.dev/tripod/test/multikind/network"
)

// Inject does f and returns when it is in force; the effect says since when. PowerOn
// also waits until the center is ready again.
func (l *Lab) Inject(ctx context.Context, f fault.Fault) (fault.Effect, error) {
	unlock, err := lock(ctx, l.root, l.name, l.report)
	if err != nil {
		return fault.Effect{}, err
	}
	defer unlock()
	// Another process may have changed the lab since it was opened.
	fresh, err := Open(l.root, l.name)
	if err != nil {
		return fault.Effect{}, err
	}
	l.state = fresh.state
	effect, err := l.inject(ctx, f)
	if err != nil {
		return fault.Effect{}, fmt.Errorf("inject %s: %w", f, err)
	}
	return effect, nil
}

func (l *Lab) inject(ctx context.Context, f fault.Fault) (fault.Effect, error) {
	switch f.Kind {
	case fault.Cut, fault.Isolate, fault.Heal:
		if f.Kind == fault.Isolate {
			if _, err := l.plan(f.Center); err != nil {
				return fault.Effect{}, err
			}
		}
		at, err := l.setCuts(ctx, l.cuts().With(f, l.state.Centers))
		if err == nil && f.Kind == fault.Heal {
			err = l.healDisks()
		}
		return effect(f, at, 0), err
	}
	plan, err := l.plan(f.Center)
	if err != nil {
		return fault.Effect{}, err
	}
	switch f.Kind {
	case fault.PowerOff:
		at, count, err := l.powerOff(ctx, plan)
		return effect(f, at, count), err
	case fault.SlowDisk:
		err := l.limitDisk(plan, slowDiskWrites)
		return effect(f, now(), 0), err
	case fault.PowerOn:
		return l.injectPowerOn(ctx, f, plan)
	}
	signals := map[fault.Kind]unix.Signal{fault.Kill: unix.SIGKILL, fault.Stop: unix.SIGSTOP, fault.Cont: unix.SIGCONT}
	if signal, ok := signals[f.Kind]; ok {
		return l.signal(ctx, f, plan, signal)
	}
	return fault.Effect{}, fmt.Errorf("the lab does not know how to %s", f.Kind)
}

func (l *Lab) injectPowerOn(ctx context.Context, f fault.Fault, plan center.Plan) (fault.Effect, error) {
	b, err := l.ensurePower(ctx, plan)
	if err != nil {
		return fault.Effect{}, err
	}
	at := now()
	if err := b.Close(); err != nil {
		return fault.Effect{}, fmt.Errorf("close machine: %w", err)
	}
	images := newImagery(l)
	close(images.done) // the disk has the images
	return effect(f, at, 0), l.bringUp(ctx, plan, images)
}

// signal strikes all victims, then takes the time: the fault is in force when the last
// of them was struck. It returns when the center, too, knows of those that were
// killed: whoever repairs it at once would take them for running.
func (l *Lab) signal(ctx context.Context, f fault.Fault, plan center.Plan, signal unix.Signal) (fault.Effect, error) {
	b, err := l.findBox(ctx, plan)
	if err != nil {
		return fault.Effect{}, err
	}
	if b == nil {
		return fault.Effect{}, fmt.Errorf("%s has no power", plan.Name)
	}
	defer b.Close()
	victims, err := l.victims(ctx, b, f.Process)
	if err != nil {
		return fault.Effect{}, err
	}
	for _, pid := range victims {
		if err := unix.Kill(pid, signal); err != nil && !errors.Is(err, unix.ESRCH) {
			return fault.Effect{}, fmt.Errorf("signal process %d: %w", pid, err)
		}
	}
	struck := now()
	if signal == unix.SIGKILL {
		err = awaitEnd(ctx, b, f.Process)
	}
	return effect(f, struck, len(victims)), err
}

// slowDiskWrites is how many writes a second a slow disk takes: an fdatasync, which is
// three or so, then waits 150 ms.
const slowDiskWrites = 20

// limitDisk bounds the writes a second of everything that runs in the center now. A
// container that starts later is not bounded. Zero is no bound.
func (l *Lab) limitDisk(plan center.Plan, writes int) error {
	var stat unix.Stat_t
	if err := unix.Stat(l.path(), &stat); err != nil {
		return fmt.Errorf("find disk: %w", err)
	}
	device := fmt.Sprintf("%d:%d", unix.Major(stat.Dev), unix.Minor(stat.Dev))
	return plan.Cgroup.LimitWrites(device, writes)
}

func (l *Lab) healDisks() error {
	for _, plan := range l.plans {
		if err := l.limitDisk(plan, 0); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) cuts() fault.Cuts {
	cuts := fault.Cuts{}
	for _, direction := range l.state.Cuts {
		cuts[direction] = true
	}
	return cuts
}

// setCuts puts cuts in force, remembers them, and returns since when they are.
func (l *Lab) setCuts(ctx context.Context, cuts fault.Cuts) (moment, error) {
	if err := network.Cut(ctx, l.plans, cuts); err != nil {
		return moment{}, err
	}
	at := now()
	l.state.Cuts = cuts.Sorted()
	return at, l.save()
}

func (l *Lab) plan(name string) (center.Plan, error) {
	i := slices.IndexFunc(l.plans, func(p center.Plan) bool { return p.Name == name })
	if i < 0 {
		return center.Plan{}, fmt.Errorf("lab %s has no center %q, only %v", l.name, name, l.state.Centers)
	}
	return l.plans[i], nil
}

func effect(f fault.Fault, at moment, processes int) fault.Effect {
	return fault.Effect{Fault: f, Monotonic: at.monotonic, Wall: at.wall, Processes: processes}
}
