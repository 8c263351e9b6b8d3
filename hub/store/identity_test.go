package store_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/store/etcdapi"
	"tripod.dev/tripod/hub/store/storetest"
)

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestMemberOfAnotherHubIsRefusedAndNamed(t *testing.T) {
	foreign := storetest.NewCA(t)
	logs := map[string]*lockedBuffer{"m0": {}, "m1": {}, "m2": {}}
	c := storetest.Start(t, 3, func(s *store.Config, _ *etcdapi.Config) {
		s.Logger = slog.New(slog.NewTextHandler(logs[s.Name], nil))
		if s.Name == "m2" {
			s.TLS = foreign.Member(t, "m2")
		}
	})
	leader := c.Leader()
	if leader.Name == "m2" {
		t.Fatal("the foreign member leads")
	}
	c.Eventually("the leader names the peer and the remedy", func() bool {
		text := logs[leader.Name].String()
		return strings.Contains(text, `m2`) && strings.Contains(text, "give it a certificate from this hub's CA")
	})
	if _, err := c.Client(leader).Put(patience(t), "key", "value"); err != nil {
		t.Fatal(err)
	}
	if c.Members[2].Store.Revision() != 1 {
		t.Fatal("the foreign member received data")
	}
}

// TestAMemberThatHangsUpIsNotCalledForeign: a proxy or a process that is just being
// killed closes connections too, and no certificate would help.
func TestAMemberThatHangsUpIsNotCalledForeign(t *testing.T) {
	logs := map[string]*lockedBuffer{"m0": {}, "m1": {}}
	c := storetest.Start(t, 2, func(s *store.Config, _ *etcdapi.Config) {
		s.Logger = slog.New(slog.NewTextHandler(logs[s.Name], nil))
	})
	c.Leader()
	c.Members[1].Stop()
	listener, err := net.Listen("tcp", c.Members[1].Address.RaftAddress)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	c.Eventually("the member that hangs up is named", func() bool {
		return strings.Contains(logs["m0"].String(), `greet member`)
	})
	if strings.Contains(logs["m0"].String(), "give it a certificate") {
		t.Fatal("a certificate is asked for, which would not help")
	}
}

func TestOnlyMembersAndAdministratorsUseTheAPI(t *testing.T) {
	c := storetest.Start(t, 1, nil)
	c.Leader()
	tests := map[string]struct {
		commonName, organization string
		admitted                 bool
	}{
		"an administrator is admitted": {"tripod:admin", etcdapi.AdminsOrganization, true},
		"a member is admitted":         {"tripod:member:m0", store.MembersOrganization, true},
		"an agent is refused":          {"tripod:agent:north-1a", "tripod:agents", false},
		"a guard is refused":           {"tripod:guard:north-1a:bank:ledger", "tripod:guards", false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			client, err := clientv3.New(clientv3.Config{
				Endpoints: []string{"https://" + c.Members[0].Address.PeerAddress}, Logger: zap.NewNop(),
				TLS: c.CA.Identity(t, test.commonName, test.organization),
			})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			_, err = client.Get(ctx, "key")
			if (err == nil) != test.admitted {
				t.Fatalf("admitted %v, want %v: %v", err == nil, test.admitted, err)
			}
		})
	}
}

func TestDataDirectoryOfAnotherMemberIsRefused(t *testing.T) {
	c := storetest.Start(t, 2, nil)
	c.Leader()
	c.Members[0].Stop()
	c.Members[1].Stop()
	other, _ := c.Members[1].Config()
	other.DataDir = c.Members[0].Dir
	_, err := store.New(other)
	if err == nil || !strings.Contains(err.Error(), `belongs to member "m0"`) {
		t.Fatalf("got %v", err)
	}
}

func TestDataDirectoryInUseIsRefused(t *testing.T) {
	c := storetest.Start(t, 1, nil)
	again, _ := c.Members[0].Config()
	again.RaftListen = "127.0.0.1:0"
	_, err := store.New(again)
	if err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Fatalf("got %v", err)
	}
}

func TestConfigSaysWhatIsWrong(t *testing.T) {
	good := store.Config{
		Name: "a", DataDir: "/nowhere", TLS: storetest.NewCA(t).Member(t, "a"),
		Members: []store.Member{{Name: "a", RaftAddress: "h:1", PeerAddress: "h:2"}},
	}
	tests := map[string]struct {
		change func(*store.Config)
		want   string
	}{
		"a complete configuration is accepted": {func(*store.Config) {}, ""},
		"a name outside the list is refused":   {func(c *store.Config) { c.Name = "b" }, `member "b" is not in the list`},
		"no TLS is refused":                    {func(c *store.Config) { c.TLS = nil }, "no TLS configuration"},
		"a bad address is refused":             {func(c *store.Config) { c.Members[0].RaftAddress = "h" }, `address "h" is not host:port`},
		"a name used twice is refused":         {func(c *store.Config) { c.Members = append(c.Members, c.Members[0]) }, "used twice"},
		"a lease longer than the heartbeat is refused": {
			func(c *store.Config) { c.Timing = store.LAN(); c.Timing.LeaderLease = time.Second }, "leader lease <= heartbeat"},
		"a reserve under two segments is refused": {func(c *store.Config) { c.SpaceReserve = 1 }, "space reserve"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := good
			c.Members = append([]store.Member(nil), good.Members...)
			test.change(&c)
			err := c.WithDefaults().Validate()
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Fatalf("got %v, want %q", err, test.want)
			}
		})
	}
}
