package hub

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"tripod.dev/tripod/test/hubprocess"
)

func TestMain(m *testing.M) {
	hubprocess.Be(LoadConfig, New, slog.LevelInfo)
	os.Exit(m.Run())
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
	*hubprocess.Member
	name string
}

func startFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{t: t, dir: t.TempDir()}
	token := filepath.Join(f.dir, "token")
	f.write(token, strings.Repeat("t", 32))
	var members string
	for i, name := range []string{"hub-a", "hub-b", "hub-c"} {
		p := &process{name: name, Member: &hubprocess.Member{Address: hubprocess.Loopback(i + 1),
			Config: filepath.Join(f.dir, name+".yaml"), Data: filepath.Join(f.dir, name), Log: filepath.Join(f.dir, name+".log")}}
		members += fmt.Sprintf("- {name: %s, region: r, center: c%d, address: %s}\n", name, i, p.Address)
		f.members = append(f.members, p)
	}
	for i, p := range f.members {
		f.write(p.Config, fmt.Sprintf("name: %s\nprofile: WAN\ndataDir: %s\nbootstrap: %t\nhubTokenFile: %s\nmembers:\n%s", p.name, p.Data, i == 0, token, members))
		f.start(p)
	}
	t.Cleanup(func() {
		for _, p := range f.members {
			p.Stop()
		}
		if t.Failed() {
			for _, p := range f.members {
				t.Logf("log of %s:\n%s", p.name, p.Tail())
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
	if err := p.Start(); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fleet) eventually(what string, check func(ctx context.Context) error) {
	f.t.Helper()
	hubprocess.Eventually(f.t, patience, what, check)
}

// api is the administrator's client configuration at one member.
func (f *fleet) api(p *process) *rest.Config {
	f.t.Helper()
	var config *rest.Config
	f.eventually(p.name+" is ready", func(ctx context.Context) (err error) {
		config, err = p.Ready(ctx)
		return err
	})
	return config
}
