// Package storefleet runs the members of a replicated store as processes on loopback:
// ours or etcd's, both with mutual TLS and every write synced to disk before it
// is acknowledged.
package storefleet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	"tripod.dev/tripod/test/freeport"
	"tripod.dev/tripod/test/multikind/center/pki"
)

// Kind is one implementation of the store.
type Kind interface {
	// Name is how a row names it.
	Name() string
	// command is how member i of f is run.
	command(f *Fleet, i int) (program string, arguments []string, err error)
	// admin is the identity that may do everything.
	admin() pki.Request
	// server is the identity of a member.
	server(name string) pki.Request
}

// Fleet is a number of members of one kind.
type Fleet struct {
	Kind    Kind
	Members []*Member

	folder    string
	authority *pki.Authority
	tls       *tls.Config
}

// ready bounds how long a member may take to serve.
const ready = time.Minute

// Start runs n members of kind on new data in folder and waits until they serve.
func Start(ctx context.Context, kind Kind, n int, folder string) (*Fleet, error) {
	f := &Fleet{Kind: kind, folder: folder}
	if err := f.issue(n); err != nil {
		return nil, err
	}
	ports, err := freeport.Find(3 * n)
	if err != nil {
		return nil, err
	}
	for i := range n {
		m := &Member{fleet: f, index: i, name: memberName(i), Folder: filepath.Join(folder, memberName(i))}
		m.client, m.peer, m.plain = ports[3*i], ports[3*i+1], ports[3*i+2]
		f.Members = append(f.Members, m)
	}
	for _, m := range f.Members {
		if err := m.Start(); err != nil {
			return nil, errors.Join(err, f.Stop())
		}
	}
	if err := f.AwaitReady(ctx); err != nil {
		return nil, errors.Join(err, f.Stop())
	}
	return f, nil
}

func memberName(i int) string { return fmt.Sprintf("m%d", i) }

// issue makes the certificates of n members and of the administrator.
func (f *Fleet) issue(n int) error {
	if err := os.MkdirAll(f.folder, 0o700); err != nil {
		return fmt.Errorf("make the fleet's folder: %w", err)
	}
	authority, err := pki.OpenAuthority(f.folder, "ca")
	if err != nil {
		return err
	}
	f.authority = authority
	for i := range n {
		if _, err := authority.Issue(memberName(i), f.Kind.server(memberName(i))); err != nil {
			return err
		}
	}
	admin, err := authority.Issue("admin", f.Kind.admin())
	if err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(admin.Certificate, admin.Key)
	if err != nil {
		return fmt.Errorf("read the administrator's certificate: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority.Certificate)
	f.tls = &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots}
	return nil
}

// AwaitReady waits until every running member answers a linearizable read.
func (f *Fleet) AwaitReady(ctx context.Context) error {
	for _, m := range f.Members {
		if m.Running() {
			if err := m.AwaitReady(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// Client connects to members, or to all if none are given.
func (f *Fleet) Client(members ...*Member) (*clientv3.Client, error) {
	if len(members) == 0 {
		members = f.Members
	}
	var endpoints []string
	for _, m := range members {
		endpoints = append(endpoints, m.URL())
	}
	c, err := clientv3.New(clientv3.Config{
		Endpoints: endpoints, TLS: f.tls, DialTimeout: 5 * time.Second, Logger: zap.NewNop(),
		// A member that was killed is to be tried again at once.
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: 2 * time.Second})},
	})
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", strings.Join(endpoints, ", "), err)
	}
	return c, nil
}

// Leader asks the running members who leads.
func (f *Fleet) Leader(ctx context.Context) (*Member, error) {
	if len(f.Members) == 1 {
		return f.Members[0], nil
	}
	var problems []error
	for _, m := range f.Members {
		if !m.Running() {
			continue
		}
		leads, err := m.leads(ctx)
		if err != nil {
			problems = append(problems, err)
		}
		if leads {
			return m, nil
		}
	}
	return nil, errors.Join(append(problems, fmt.Errorf("%s: no member leads", f.Kind.Name()))...)
}

// AwaitLeader waits until a member leads.
func (f *Fleet) AwaitLeader(ctx context.Context) (leader *Member, err error) {
	err = poll(ctx, func(ctx context.Context) error {
		leader, err = f.Leader(ctx)
		return err
	})
	return leader, err
}

// Stop ends all members.
func (f *Fleet) Stop() error {
	var failed []error
	for _, m := range f.Members {
		failed = append(failed, m.Kill())
	}
	return errors.Join(failed...)
}

// poll tries until it works, with a limit.
func poll(ctx context.Context, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, ready)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %s: %w", ready, err)
		case <-ticker.C:
		}
	}
}

// connected waits until c has a connection, so that dialling is not measured.
func connected(ctx context.Context, c *clientv3.Client) error {
	connection := c.ActiveConnection()
	connection.Connect()
	for state := connection.GetState(); state != connectivity.Ready; state = connection.GetState() {
		if !connection.WaitForStateChange(ctx, state) {
			return ctx.Err()
		}
	}
	return nil
}
