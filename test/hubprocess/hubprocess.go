// Package hubprocess runs members of the hub as processes of their own in tests: two
// API servers cannot be in one process. It does not import the hub, whose own tests
// use it.
package hubprocess

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// configVariable names the configuration of the member that a process is.
const configVariable = "TRIPOD_TEST_HUB_MEMBER"

// Be makes the test's program a member instead of running tests, if a Member has
// started it; TestMain calls it first. load and open are hub.LoadConfig and hub.New,
// level is what the member logs.
func Be[C any, M interface {
	Run(ctx context.Context) error
}](load func(path string) (C, error), open func(context.Context, C, *slog.Logger) (M, error), level slog.Level) {
	path := os.Getenv(configVariable)
	if path == "" {
		return
	}
	run := func() error {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		config, err := load(path)
		if err != nil {
			return err
		}
		member, err := open(ctx, config, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})))
		if err != nil {
			return err
		}
		return member.Run(ctx)
	}
	if err := run(); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Member is one that the test's program, started again, becomes. It is not safe for
// concurrent use.
type Member struct {
	Address string
	// Config, Data and Log are its files. All that it prints is appended to Log.
	Config, Data, Log string

	command *exec.Cmd // nil while it does not run
}

// Alone writes what a hub of one member needs into dir; more are further lines of its
// configuration.
func Alone(dir string, more ...string) (*Member, error) {
	m := &Member{Address: Loopback(1), Config: filepath.Join(dir, "hub.yaml"), Data: filepath.Join(dir, "data"), Log: filepath.Join(dir, "hub.log")}
	token := filepath.Join(dir, "token")
	lines := append([]string{"name: hub-a", "dataDir: " + m.Data, "bootstrap: true", "hubTokenFile: " + token,
		"members:", "- {name: hub-a, region: r, center: c, address: " + m.Address + "}"}, more...)
	for path, text := range map[string]string{token: strings.Repeat("t", 32), m.Config: strings.Join(lines, "\n") + "\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// Loopback is the n-th address of this process, from 1, so that two runs of tests do
// not meet: a member's ports are fixed.
func Loopback(n int) string {
	return fmt.Sprintf("127.%d.%d.%d", 64+os.Getpid()/256%128, os.Getpid()%256, n)
}

// Start begins the member's process; see Ready.
func (m *Member) Start() error {
	log, err := os.OpenFile(m.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the process has its own
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), configVariable+"="+m.Config)
	command.Stdout, command.Stderr = log, log
	if err := command.Start(); err != nil {
		return err
	}
	m.command = command
	return nil
}

// Stop asks the process to end and waits for that; a process that does not is killed.
func (m *Member) Stop() {
	if m.command == nil {
		return
	}
	_ = m.command.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(30*time.Second, func() { _ = m.command.Process.Kill() })
	_ = m.command.Wait()
	kill.Stop()
	m.command = nil
}

// Kill ends the process as a loss of power would.
func (m *Member) Kill() {
	_ = m.command.Process.Kill()
	_ = m.command.Wait()
	m.command = nil
}

// Ready is the administrator's client configuration, once the member is ready.
func (m *Member) Ready(ctx context.Context) (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(m.Data, "admin.kubeconfig"))
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	api, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return config, api.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
}

// Tail is the end of its log.
func (m *Member) Tail() string {
	text, _ := os.ReadFile(m.Log)
	return string(text[max(0, len(text)-4000):])
}

// Eventually tries until it works, for no longer than limit; the machine may be busy.
func Eventually(tb testing.TB, limit time.Duration, what string, check func(ctx context.Context) error) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), limit)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			tb.Fatalf("%s: still %v", what, err)
		case <-tick.C:
		}
	}
}
