package hub

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

// memberConfig makes the test binary a hub member instead of running tests: two API
// servers cannot be in one process.
const memberConfig = "HUB_MEMBER_CONFIG"

func TestMain(m *testing.M) {
	path := os.Getenv(memberConfig)
	if path == "" {
		os.Exit(m.Run())
	}
	if err := beMember(path); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func beMember(path string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	config, err := LoadConfig(path)
	if err != nil {
		return err
	}
	member, err := New(ctx, config, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	return member.Run(ctx)
}

// patience bounds each wait; the machine may be busy.
const patience = 3 * time.Minute

// fleet is a hub of three processes on loopback addresses of its own.
type fleet struct {
	t       *testing.T
	dir     string
	members []*process
}

type process struct {
	name, address, data, config string
	command                     *exec.Cmd
	log                         *os.File
}

func startFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{t: t, dir: t.TempDir()}
	token := filepath.Join(f.dir, "token")
	f.write(token, strings.Repeat("t", 32))
	// Of this process, so that two runs do not meet.
	network := fmt.Sprintf("127.%d.%d.", 64+os.Getpid()%64, os.Getpid()/64%256)
	var members string
	for i, name := range []string{"hub-a", "hub-b", "hub-c"} {
		p := &process{name: name, address: fmt.Sprintf("%s%d", network, i+1), data: filepath.Join(f.dir, name), config: filepath.Join(f.dir, name+".yaml")}
		members += fmt.Sprintf("- {name: %s, region: r, center: c%d, address: %s}\n", name, i, p.address)
		f.members = append(f.members, p)
	}
	for i, p := range f.members {
		f.write(p.config, fmt.Sprintf("name: %s\nprofile: WAN\ndataDir: %s\nbootstrap: %t\nhubTokenFile: %s\nmembers:\n%s", p.name, p.data, i == 0, token, members))
		f.start(p)
	}
	t.Cleanup(func() {
		for _, p := range f.members {
			f.stop(p)
		}
		if t.Failed() {
			for _, p := range f.members {
				text, _ := os.ReadFile(p.log.Name())
				t.Logf("log of %s:\n%s", p.name, text[max(0, len(text)-3000):])
			}
		}
	})
	return f
}

func (f *fleet) write(path, text string) {
	f.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fleet) start(p *process) {
	f.t.Helper()
	var err error
	if p.log, err = os.OpenFile(filepath.Join(f.dir, p.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		f.t.Fatal(err)
	}
	p.command = exec.Command(os.Args[0])
	p.command.Env = append(os.Environ(), memberConfig+"="+p.config)
	p.command.Stderr = p.log
	if err := p.command.Start(); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fleet) stop(p *process) {
	if p.command == nil {
		return
	}
	_ = p.command.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(30*time.Second, func() { _ = p.command.Process.Kill() })
	_ = p.command.Wait()
	kill.Stop()
	p.command = nil
	_ = p.log.Close()
}

func (f *fleet) eventually(what string, check func(ctx context.Context) error) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
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
			f.t.Fatalf("%s: still %v", what, err)
		case <-tick.C:
		}
	}
}

// api is the administrator's client configuration at one member.
func (f *fleet) api(p *process) *rest.Config {
	f.t.Helper()
	var config *rest.Config
	f.eventually(p.name+" is ready", func(ctx context.Context) (err error) {
		if config, err = clientcmd.BuildConfigFromFlags("", filepath.Join(p.data, "admin.kubeconfig")); err != nil {
			return err
		}
		config.QPS = -1
		client, err := kubernetes.NewForConfig(config)
		if err != nil {
			return err
		}
		return client.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
	return config
}
