// Package process runs the guard's children: it forks them, reaps every zombie
// of the container, and kills all of them at once.
package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Spec is a program to run. It gets a session of its own, and SIGKILL when the
// guard dies.
type Spec struct {
	Path string
	Args []string // without the program's own name
	Env  []string
	Dir  string
	// User runs the program without the guard's privileges; nil keeps them.
	User *syscall.Credential
	// Files are its standard input, output and error.
	Files [3]*os.File
}

// Process is a started child.
type Process struct {
	Pid    int
	done   chan struct{}
	status syscall.WaitStatus
}

// Done is closed when the child has been reaped.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err is nil after an exit with status 0; it may be called once Done is closed.
func (p *Process) Err() error {
	switch {
	case p.status.Signaled():
		return fmt.Errorf("ended by signal %v", p.status.Signal())
	case p.status.ExitStatus() != 0:
		return fmt.Errorf("ended with status %d", p.status.ExitStatus())
	}
	return nil
}

// Signal sends s to the child. A child that has been reaped gets nothing.
func (p *Process) Signal(s syscall.Signal) {
	select {
	case <-p.done:
	default:
		_ = syscall.Kill(p.Pid, s)
	}
}

// Supervisor owns every child of the process: nothing else may wait for one
// (os/exec cannot be used beside it).
type Supervisor struct {
	forks chan fork

	mu       sync.Mutex
	children map[int]*Process
}

type fork struct {
	spec  Spec
	reply chan forked
}

type forked struct {
	process *Process
	err     error
}

// ErrStopped is returned by Start before Run has begun or after it has ended.
var ErrStopped = errors.New("the supervisor of processes is not running")

// NewSupervisor makes orphaned descendants the children of this process, as
// they are of PID 1 anyway.
func NewSupervisor() (*Supervisor, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("become the reaper of orphans: %w", err)
	}
	return &Supervisor{forks: make(chan fork), children: map[int]*Process{}}, nil
}

// Run forks and reaps until ctx ends. It then kills every child and reaps them.
func (s *Supervisor) Run(ctx context.Context) error {
	chld := make(chan os.Signal, 1)
	signal.Notify(chld, syscall.SIGCHLD)
	defer signal.Stop(chld)
	forkers, stop := context.WithCancel(context.WithoutCancel(ctx))
	var forker sync.WaitGroup
	forker.Go(func() { s.forker(forkers) })
	defer forker.Wait()
	defer stop()
	s.reap()
	for {
		select {
		case <-chld:
			s.reap()
		case <-ctx.Done():
			stop()
			s.KillAll()
			s.reap()
			return nil
		}
	}
}

// forker forks on one thread that lives as long as the supervisor: the kernel
// sends a child its parent-death signal when the forking thread ends.
func (s *Supervisor) forker(ctx context.Context) {
	runtime.LockOSThread()
	for {
		select {
		case f := <-s.forks:
			p, err := s.fork(f.spec)
			f.reply <- forked{p, err}
		case <-ctx.Done():
			return
		}
	}
}

// Start runs spec. The child is reaped by Run.
func (s *Supervisor) Start(ctx context.Context, spec Spec) (*Process, error) {
	reply := make(chan forked, 1)
	select {
	case s.forks <- fork{spec, reply}:
		r := <-reply
		return r.process, r.err
	case <-ctx.Done():
		return nil, fmt.Errorf("start %s: %w", spec.Path, ErrStopped)
	}
}

func (s *Supervisor) fork(spec Spec) (*Process, error) {
	files := make([]uintptr, 3)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Path, err)
	}
	defer null.Close()
	for i, f := range spec.Files {
		if f == nil {
			f = null
		}
		files[i] = f.Fd()
	}
	// The lock keeps the reaper from losing a child that ends before it is known.
	s.mu.Lock()
	defer s.mu.Unlock()
	pid, err := syscall.ForkExec(spec.Path, append([]string{spec.Path}, spec.Args...), &syscall.ProcAttr{
		Dir: spec.Dir, Env: spec.Env, Files: files,
		Sys: &syscall.SysProcAttr{Setsid: true, Credential: spec.User, Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Path, err)
	}
	p := &Process{Pid: pid, done: make(chan struct{})}
	s.children[pid] = p
	return p, nil
}

// reap collects every ended child, those included that were orphaned to us.
func (s *Supervisor) reap() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if p := s.children[pid]; p != nil {
			delete(s.children, pid)
			p.status = status
			close(p.done)
		}
	}
}
