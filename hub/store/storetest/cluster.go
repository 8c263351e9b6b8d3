// Package storetest runs hub stores in one process, for tests: real listeners
// on loopback, real files, and a network that can be cut.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/store/etcdapi"
	"tripod.dev/tripod/test/freeport"
)

// Patience bounds every wait of this package.
const Patience = 20 * time.Second

// Cluster is a number of members.
type Cluster struct {
	CA      *CA
	Network *Network
	Members []*Member

	tb        testing.TB
	dir       string
	configure func(*store.Config, *etcdapi.Config)
}

// Member is one member; it can be stopped and started again on its data.
type Member struct {
	Name    string
	Address store.Member
	Dir     string
	Store   *store.Store
	API     *etcdapi.Server

	cluster *Cluster
	cancel  context.CancelFunc
	done    chan struct{}
	err     error
}

// Start runs n members (m0 bootstraps) until the test ends. configure may adjust
// each member's configuration; it is also called at a restart.
func Start(tb testing.TB, n int, configure func(*store.Config, *etcdapi.Config)) *Cluster {
	tb.Helper()
	c := &Cluster{CA: NewCA(tb), Network: newNetwork(), tb: tb, configure: configure}
	c.dir = tb.TempDir()
	for i := range n {
		c.New(fmt.Sprintf("m%d", i), fmt.Sprintf("c%d", i))
	}
	tb.Cleanup(func() {
		var wg sync.WaitGroup
		for _, m := range c.Members {
			wg.Go(m.Stop)
		}
		wg.Wait()
	})
	for _, m := range c.Members {
		m.Start()
	}
	return c
}

// New describes one more member, in a center; it is not started. Only the first
// one ever bootstraps.
func (c *Cluster) New(name, center string) *Member {
	c.tb.Helper()
	addresses := freeport.Addresses(c.tb, 2)
	m := &Member{
		Name: name, Dir: filepath.Join(c.dir, name), cluster: c,
		Address: store.Member{
			Name: name, RaftAddress: addresses[0], PeerAddress: addresses[1],
			Region: "r", Center: center, Address: name + ".test",
		},
	}
	c.Network.own(name, m.Address.RaftAddress, m.Address.PeerAddress)
	c.Members = append(c.Members, m)
	return m
}

// Config is the configuration that the member starts with.
func (m *Member) Config() (store.Config, etcdapi.Config) {
	c := m.cluster
	var members []store.Member
	for _, other := range c.Members {
		members = append(members, other.Address)
	}
	identity := c.CA.Member(c.tb, m.Name)
	log := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		log = slog.New(slog.NewTextHandler(c.tb.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
	}
	sc := store.Config{
		Name: m.Name, DataDir: m.Dir, RaftListen: m.Address.RaftAddress, Members: members,
		Bootstrap: m == c.Members[0], TLS: identity, Dial: c.Network.dialer(m.Name), Logger: log,
	}
	ac := etcdapi.Config{Listen: []string{m.Address.PeerAddress}, TLS: identity, Logger: log}
	if c.configure != nil {
		c.configure(&sc, &ac)
	}
	return sc, ac
}

// Start runs the member on its data.
func (m *Member) Start() {
	tb := m.cluster.tb
	tb.Helper()
	if err := m.TryStart(); err != nil {
		tb.Fatalf("start %s: %v", m.Name, err)
	}
}

// TryStart is Start for members that are expected to refuse.
func (m *Member) TryStart() error {
	sc, ac := m.Config()
	s, err := store.New(sc)
	if err != nil {
		return err
	}
	serving, stopServing := context.WithCancel(context.Background())
	storing, stopStoring := context.WithCancel(context.Background())
	api, err := etcdapi.New(s, ac)
	if err != nil {
		stopServing()
		stopStoring()
		return errors.Join(err, s.Run(storing))
	}
	m.Store, m.API, m.cancel, m.done = s, api, stopServing, make(chan struct{})
	go func() {
		defer close(m.done)
		var served error
		var wg sync.WaitGroup
		// The API ends before the store that it serves.
		wg.Go(func() {
			served = api.Run(serving)
			stopStoring()
		})
		stored := s.Run(storing)
		stopServing()
		wg.Wait()
		m.err = errors.Join(served, stored)
	}()
	return nil
}

// Running says whether the member was started and not stopped.
func (m *Member) Running() bool { return m.cancel != nil }

// Stop ends the member and waits until its files are closed.
func (m *Member) Stop() {
	if m.cancel == nil {
		return
	}
	m.cancel()
	<-m.done
	m.cancel = nil
}

// Ended waits until the member has ended by itself and returns why.
func (m *Member) Ended() error {
	select {
	case <-m.done:
		return m.err
	case <-time.After(Patience):
		return errors.New("the member still runs")
	}
}

// Client connects to these members only, or to all if none are given.
func (c *Cluster) Client(members ...*Member) *clientv3.Client {
	c.tb.Helper()
	if len(members) == 0 {
		members = c.Members
	}
	var endpoints []string
	for _, m := range members {
		endpoints = append(endpoints, "https://"+m.Address.PeerAddress)
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: endpoints, DialTimeout: 5 * time.Second, Logger: zap.NewNop(),
		TLS: c.CA.Identity(c.tb, "tripod:admin", etcdapi.AdminsOrganization),
	})
	if err != nil {
		c.tb.Fatal(err)
	}
	c.tb.Cleanup(func() { _ = client.Close() })
	return client
}

// Leader waits until one of the running members leads and is ready, and returns
// it.
func (c *Cluster) Leader() *Member {
	c.tb.Helper()
	var leader *Member
	c.Eventually("a member leads", func() bool {
		for _, m := range c.Members {
			if m.cancel != nil && m.Store.IsLeader() {
				leader = m
				return true
			}
		}
		return false
	})
	return leader
}

// Follower returns a running member that does not lead.
func (c *Cluster) Follower() *Member {
	c.tb.Helper()
	leader := c.Leader()
	for _, m := range c.Members {
		if m != leader && m.cancel != nil {
			return m
		}
	}
	c.tb.Fatal("no follower runs")
	return nil
}

// Eventually waits until the condition holds.
func (c *Cluster) Eventually(what string, condition func() bool) {
	c.tb.Helper()
	deadline := time.Now().Add(Patience)
	for !condition() {
		if time.Now().After(deadline) {
			c.tb.Fatalf("not within %s: %s", Patience, what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// Converged waits until all running members have applied the same entries.
func (c *Cluster) Converged() {
	c.tb.Helper()
	c.Eventually("all members have applied the same", func() bool {
		leader := c.Leader()
		index := leader.Store.AppliedIndex()
		for _, m := range c.Members {
			if m.cancel != nil && m.Store.AppliedIndex() != index {
				return false
			}
		}
		return true
	})
}
