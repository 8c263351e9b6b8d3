// Package postgresql runs a PostgreSQL 15 (15.13 or newer) as the guard's child.
package postgresql

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	"tripod.dev/tripod/failover/guard/process"
	"tripod.dev/tripod/failover/guard/volume"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// Config of an engine.
type Config struct {
	// Programs is the folder of postgres, initdb, pg_rewind and the others.
	Programs string
	// Secrets is a folder with the files of the credentials Secret:
	// database, client-user, client-password, monitor-password and
	// replication-password.
	Secrets string
	Port    int
	// Apart: a drill's copy, which nobody may notice.
	Apart bool
	// User runs the database; nil when the guard has no privileges to drop.
	User *syscall.Credential
}

// place is one copy's folder and what is around it.
type place struct {
	cfg       Config
	volume    *volume.Volume
	processes *process.Supervisor
}

// Engine runs the copy. Its methods are called one at a time, except Writable
// and Listening.
type Engine struct {
	*place

	settings *agentv1.DatabaseSettings
	child    *process.Process
	waiting  sync.WaitGroup
	// recovering is true once the running replica was seen in recovery.
	recovering atomic.Bool
}

// Copies makes, measures and replaces the copy while it is stopped. Its methods
// are called one at a time, and never beside the engine's.
type Copies struct{ *place }

// New finishes a swap of copies that a crash interrupted.
func New(cfg Config, v *volume.Volume, p *process.Supervisor) (*Engine, *Copies, error) {
	at := &place{cfg, v, p}
	copies := &Copies{at}
	if err := copies.recoverSwap(); err != nil {
		return nil, nil, fmt.Errorf("recover the volume: %w", err)
	}
	return &Engine{place: at, settings: &agentv1.DatabaseSettings{}}, copies, nil
}

// Wait returns when no callback of a database's end is under way.
func (e *Engine) Wait() { e.waiting.Wait() }

func (p *place) data(names ...string) string {
	return p.volume.Path(append([]string{"data"}, names...)...)
}

// Start runs the copy as mode and returns when it accepts connections.
func (e *Engine) Start(ctx context.Context, mode agentv1.DatabaseMode, s *agentv1.DatabaseSettings, exited func(error)) error {
	e.settings = proto.CloneOf(s)
	e.recovering.Store(false)
	replica := mode == agentv1.DatabaseMode_DATABASE_MODE_REPLICA
	if replica {
		if err := e.dropUnwritten(ctx); err != nil {
			return fmt.Errorf("look for timelines without a record: %w", err)
		}
	}
	if err := e.setStandbySignal(replica); err != nil {
		return err
	}
	if err := e.writeConfiguration(e.settings, replica); err != nil {
		return err
	}
	// The volume's lock and a kill of all processes say that no postmaster is
	// left; its file may name a pid that is somebody else's by now.
	if err := os.Remove(e.data("postmaster.pid")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	child, err := e.processes.Start(ctx, process.Spec{
		Path: e.program("postgres"),
		Args: []string{"-D", e.data(), "--config-file=" + e.configuration()},
		Env:  e.environment(), Dir: e.data(), User: e.cfg.User,
		Files: [3]*os.File{nil, os.Stderr, os.Stderr},
	})
	if err != nil {
		return err
	}
	e.child = child
	e.waiting.Go(func() {
		<-child.Done()
		exited(child.Err())
	})
	return e.await(ctx, "accept connections", func() (bool, error) {
		status, err := e.postmasterStatus(child.Pid)
		return status == "ready", err
	})
}

// await looks at a condition of the running child until it is met. PostgreSQL
// tells of it by files only, as it does to pg_ctl.
func (e *Engine) await(ctx context.Context, what string, met func() (bool, error)) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := met()
		if ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-e.child.Done():
			if err := e.child.Err(); err != nil {
				return fmt.Errorf("postgres did not %s, see its log: %w", what, err)
			}
			return fmt.Errorf("postgres did not %s: it stopped", what)
		case <-ctx.Done():
			return fmt.Errorf("wait for postgres to %s: %w", what, ctx.Err())
		}
	}
}

// postmasterStatus reads the eighth line of postmaster.pid.
func (e *Engine) postmasterStatus(pid int) (string, error) {
	b, err := os.ReadFile(e.data("postmaster.pid"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	lines := strings.Split(string(b), "\n")
	if len(lines) < 8 || strings.TrimSpace(lines[0]) != strconv.Itoa(pid) {
		return "", nil
	}
	return strings.TrimSpace(lines[7]), nil
}

// Promote makes the running replica writable. What it waits for is written
// first: until that is in force it waits for a standby that does not exist, so
// no write is acknowledged too early.
func (e *Engine) Promote(ctx context.Context, s *agentv1.DatabaseSettings) error {
	e.settings = proto.CloneOf(s)
	if err := e.writeConfiguration(e.settings, false); err != nil {
		return err
	}
	e.child.Signal(syscall.SIGHUP)
	if err := e.writeOwned(e.data("promote"), nil, 0o600); err != nil {
		return err
	}
	e.child.Signal(syscall.SIGUSR1)
	return e.await(ctx, "accept writes", func() (bool, error) {
		state, err := e.state()
		return state == inProduction, err
	})
}

// Configure reloads what s changes; empty fields keep what Start was given.
func (e *Engine) Configure(_ context.Context, s *agentv1.DatabaseSettings) error {
	next := proto.CloneOf(e.settings)
	next.WaitFor = s.GetWaitFor()
	if s.GetPrimaryAddress() != "" {
		next.PrimaryAddress = s.GetPrimaryAddress()
	}
	_, err := os.Stat(e.data("standby.signal"))
	e.settings = next
	if err := e.writeConfiguration(e.settings, err == nil); err != nil {
		return err
	}
	e.child.Signal(syscall.SIGHUP)
	return nil
}

// Stop is a fast shutdown: sessions end, and the log up to the last record goes
// to the standbys that receive it.
func (e *Engine) Stop(ctx context.Context) error {
	if e.child != nil {
		e.child.Signal(syscall.SIGINT)
		select {
		case <-e.child.Done():
		case <-ctx.Done():
			return fmt.Errorf("wait for postgres to stop: %w", ctx.Err())
		}
	}
	state, err := e.state()
	if err == nil && state != shutDown && state != shutDownInRecovery {
		err = fmt.Errorf("postgres has ended, but not in order: its pg_control is in state %d", state)
	}
	return err
}

// States of pg_control that matter here.
const (
	shutDown           = 1
	shutDownInRecovery = 2
	inRecovery         = 5
	inProduction       = 6
)

// state reads the copy's own word from pg_control: after the system identifier
// and two version numbers.
func (e *Engine) state() (uint32, error) {
	b, err := os.ReadFile(e.data("global", "pg_control"))
	if err != nil {
		return 0, err
	}
	if len(b) < 20 {
		return 0, fmt.Errorf("pg_control has %d bytes", len(b))
	}
	return binary.LittleEndian.Uint32(b[16:20]), nil
}

// Writable reports whether a running replica left recovery.
func (e *Engine) Writable() (bool, error) {
	state, err := e.state()
	if err != nil {
		return false, err
	}
	if state == inRecovery {
		e.recovering.Store(true)
	}
	// A base copy carries the source's state until recovery has begun.
	return state == inProduction && e.recovering.Load(), nil
}

// Listening says whether anything accepts connections on the database's port.
func (e *Engine) Listening(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(e.cfg.Port)))
	if err == nil {
		conn.Close()
		return true
	}
	return !errors.Is(err, syscall.ECONNREFUSED)
}

func (p *place) program(name string) string { return filepath.Join(p.cfg.Programs, name) }

func (p *place) environment() []string {
	return []string{"LC_ALL=C.UTF-8", "LANG=C.UTF-8", "PATH=" + p.cfg.Programs + ":/usr/bin:/bin",
		"HOME=" + p.volume.Path("run"), "PGPASSFILE=" + p.passfile()}
}

// tool runs one of PostgreSQL's programs as the database's user.
func (p *place) tool(ctx context.Context, stdin, name string, args ...string) ([]byte, error) {
	return p.processes.Output(ctx, process.Spec{
		Path: p.program(name), Args: args, Env: p.environment(), Dir: p.volume.Path("run"), User: p.cfg.User,
	}, stdin)
}
