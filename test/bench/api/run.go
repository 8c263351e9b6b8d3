// Package api measures the Kubernetes API of a hub of one member beside a
// kube-apiserver with one etcd: same objects, same audit policy, client
// certificates, RBAC, and mutual TLS between API server and store in both.
package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"tripod.dev/tripod/test/bench/load"
	"tripod.dev/tripod/test/bench/report"
)

// Config is what report.Run needs, and where the programs are.
type Config struct {
	report.Plan
	// BinDir holds tripod-hub and kubernode.
	BinDir string
	// Folder takes the servers' data.
	Folder string
	// Duration of one measurement.
	Duration time.Duration
	// Trusted is a further authority, PEM, whose clients the peer knows. Optional.
	Trusted []byte
}

const (
	// namespace has what is read.
	namespace = "default"
	// filling has what is created: the faster server would have more to list.
	filling = "filling"
)

// listed is how many objects a list reads.
const listed = 500

// Run measures all rows that are asked for.
func Run(ctx context.Context, c Config) (err error) {
	rows := slices.DeleteFunc(c.rows(), func(r report.Measured[*Server]) bool { return !c.Wants(r.Name) })
	if len(rows) == 0 {
		return nil
	}
	var servers []*Server
	defer func() {
		for _, s := range servers {
			err = errors.Join(err, s.Stop())
		}
	}()
	for _, start := range []func(context.Context, Config) (*Server, error){StartHub, StartPeer} {
		s, err := start(ctx, c)
		if s != nil {
			servers = append(servers, s)
		}
		if err != nil {
			return err
		}
		if err := s.fill(ctx); err != nil {
			return fmt.Errorf("fill %s: %w", s.name, err)
		}
	}
	for _, r := range rows {
		if err := r.Run(ctx, c.Plan, servers[0], servers[1]); err != nil {
			return err
		}
	}
	return nil
}

func (c Config) rows() []report.Measured[*Server] {
	var rows []report.Measured[*Server]
	add := func(name string, clients int, do func(s *Server) operation) {
		rows = append(rows, report.Measured[*Server]{Name: fmt.Sprintf("api/%s/c=%d", name, clients), Unit: "op/s", Better: report.Higher,
			Measure: func(ctx context.Context, s *Server) (float64, error) {
				return s.throughput(ctx, c.Duration, clients, do(s))
			}})
	}
	for _, clients := range []int{1, 16, 256} {
		add("create", clients, (*Server).create)
		add("get", clients, (*Server).get)
	}
	for _, clients := range []int{1, 16} {
		add("list", clients, (*Server).list)
	}
	return rows
}

// operation is one request.
type operation func(ctx context.Context, c kubernetes.Interface, client, n int) error

func (s *Server) throughput(ctx context.Context, duration time.Duration, clients int, do operation) (float64, error) {
	open, closeAll, err := s.connect(min(clients, 32))
	if err != nil {
		return 0, err
	}
	defer closeAll()
	r, err := load.Load{Clients: clients, Warmup: min(duration/3, time.Second), Duration: duration,
		Do: func(ctx context.Context, client, n int) error { return do(ctx, open[client%len(open)], client, n) }}.Run(ctx)
	return r.PerSecond, err
}

// fill makes the objects that get and list read, and a place for those of create.
func (s *Server) fill(ctx context.Context) error {
	open, closeAll, err := s.connect(1)
	if err != nil {
		return err
	}
	defer closeAll()
	if _, err := open[0].CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: filling}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	for n := range listed {
		o := object(fmt.Sprintf("read-%04d", n))
		o.Labels = map[string]string{"read": "true"}
		if _, err := open[0].CoreV1().ConfigMaps(namespace).Create(ctx, o, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	return nil
}

// object is a small ConfigMap, about 1 KiB in all.
func object(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"data": payload}}
}

var payload = string(slices.Repeat([]byte("0123456789abcdef"), 60))

var created atomic.Int64

func (s *Server) create() operation {
	return func(ctx context.Context, c kubernetes.Interface, _, _ int) error {
		_, err := c.CoreV1().ConfigMaps(filling).Create(ctx, object(fmt.Sprintf("made-%08d", created.Add(1))), metav1.CreateOptions{})
		return err
	}
}

// get reads from the store, as every get without a resource version does.
func (s *Server) get() operation {
	return func(ctx context.Context, c kubernetes.Interface, client, n int) error {
		_, err := c.CoreV1().ConfigMaps(namespace).Get(ctx, fmt.Sprintf("read-%04d", (client*7919+n)%listed), metav1.GetOptions{})
		return err
	}
}

// list reads the namespace, consistently.
func (s *Server) list() operation {
	return func(ctx context.Context, c kubernetes.Interface, _, _ int) error {
		l, err := c.CoreV1().ConfigMaps(namespace).List(ctx, metav1.ListOptions{Limit: listed})
		if err == nil && len(l.Items) != listed {
			return fmt.Errorf("read %d objects instead of %d", len(l.Items), listed)
		}
		return err
	}
}
