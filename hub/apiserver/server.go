package apiserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"k8s.io/client-go/rest"
)

// drainLimit bounds how long Run goes on after its ctx has ended.
const drainLimit = 10 * time.Second

// Server is the API server of one hub member. Create it with New, run it once.
type Server struct {
	config   Config
	listener net.Listener
	chain    *chain
	startup  *startup
	address  string

	serving chan struct{}
	started atomic.Bool
}

// New listens on config.Listen and configures the server. It does not touch
// the store; a client that connects before Run waits.
func New(ctx context.Context, config Config) (*Server, error) {
	config = config.WithDefaults()
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if err := setProcessWide(); err != nil {
		return nil, fmt.Errorf("apiserver: turn feature gates: %w", err)
	}
	routeUpstreamLogs(config.Logger)
	listener, err := listen(ctx, config.Listen)
	if err != nil {
		return nil, err
	}
	server, err := newServer(ctx, config, listener)
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return server, nil
}

func newServer(ctx context.Context, config Config, listener net.Listener) (*Server, error) {
	secrets := &lateSecrets{}
	options, err := upstreamOptions(ctx, config, listener, secrets)
	if err != nil {
		return nil, err
	}
	chain, err := newChain(options, config, secrets)
	if err != nil {
		return nil, err
	}
	startup, err := newStartup(config.Logger)
	if err != nil {
		return nil, err
	}
	return &Server{
		config: config, listener: listener, chain: chain, startup: startup,
		address: listener.Addr().String(), serving: make(chan struct{}),
	}, nil
}

func listen(ctx context.Context, address string) (net.Listener, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("apiserver: %s is in use by another process: stop it (`ss -ltnp` shows it) or set another API address: %w", address, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("apiserver: %s is no address of this machine: correct the API address: %w", address, err)
	case err != nil:
		return nil, fmt.Errorf("apiserver: listen on %s: %w", address, err)
	}
	return listener, nil
}

// Address is the host:port that the server listens on.
func (s *Server) Address() string { return s.address }

// Loopback is a client configuration with all rights, for this process alone.
// Requests made with it wait until Run serves. The caller owns the copy.
func (s *Server) Loopback() *rest.Config {
	config := rest.CopyConfig(s.chain.controlPlane.Generic.LoopbackClientConfig)
	config.ContentConfig = rest.ContentConfig{} // protobuf does not carry custom resources
	return config
}

// Statuses writes statuses for the hub's own engine, until Run ends.
func (s *Server) Statuses() *Statuses { return s.chain.statuses }

// Feeds serve the hub's own informers, until Run ends.
func (s *Server) Feeds() *Feeds { return s.chain.feeds }

// Serving is closed when the server accepts requests; /readyz says when it is
// ready for all of them.
func (s *Server) Serving() <-chan struct{} { return s.serving }

// Ready is closed when this server serves and lists Tripod's kinds: work that
// uses them (the leader's, for one) starts no earlier.
func (s *Server) Ready() <-chan struct{} { return s.startup.served }

// Run waits for the store, serves until ctx ends and then drains. It must be
// called once.
func (s *Server) Run(ctx context.Context) error {
	if !s.started.CompareAndSwap(false, true) {
		return errors.New("apiserver: Run was called twice")
	}
	defer s.chain.statuses.close()
	defer s.chain.feeds.close()
	if err := s.waitForStore(ctx); err != nil {
		return errors.Join(err, s.listener.Close())
	}
	front, err := s.chain.create(s.config.Hooks, s.startup)
	if err != nil {
		return errors.Join(err, s.listener.Close())
	}
	err = front.GenericAPIServer.AddPostStartHook("tripod-serving", servingHook(s.serving))
	if err != nil {
		return errors.Join(fmt.Errorf("apiserver: %w", err), s.listener.Close())
	}
	prepared, err := front.PrepareRun()
	if err != nil {
		return errors.Join(fmt.Errorf("apiserver: prepare: %w", err), s.listener.Close())
	}
	s.config.Logger.Info("API server starts", "member", s.config.Member, "address", s.address)
	ctx, leave := running.enter(ctx)
	defer leave()
	done := make(chan error, 1)
	go func() { done <- prepared.Run(ctx) }()
	select {
	case err = <-done:
	case <-ctx.Done():
		err = s.drain(done)
	}
	if err != nil {
		return fmt.Errorf("apiserver: serve: %w", err)
	}
	if cause := context.Cause(ctx); errors.Is(cause, errUpstreamGaveUp) {
		return cause
	}
	return nil
}

// drain waits for requests under way, but not for those that wait for the store
// until they time out after a minute: the member has to stop. The goroutine of
// the server is then left to end by itself.
func (s *Server) drain(done <-chan error) error {
	limit := time.NewTimer(drainLimit)
	defer limit.Stop()
	select {
	case err := <-done:
		return err
	case <-limit.C:
		s.config.Logger.Warn("API server stops with requests under way", "member", s.config.Member, "after", drainLimit)
		return nil
	}
}

// waitForStore returns when the store answers a linearizable read, or with
// ctx's error. It says what it waits for.
func (s *Server) waitForStore(ctx context.Context) error {
	client, err := storeClient(s.config.Store, s.config.Logger)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }() // nothing was written
	begun, reported := time.Now(), time.Time{}
	return untilDone(ctx, 200*time.Millisecond, func() error {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		_, err := client.Get(attempt, s.config.Store.Prefix+"/health")
		if err != nil && time.Since(reported) > 10*time.Second && time.Since(begun) > time.Second {
			reported = time.Now()
			s.config.Logger.Warn("API server waits for the store: it needs a majority of the hub's members",
				"member", s.config.Member, "endpoints", s.config.Store.Endpoints, "error", err)
		}
		return err
	})
}

func storeClient(store Store, logger *slog.Logger) (*clientv3.Client, error) {
	var config *tls.Config
	if store.CA != "" {
		var err error
		info := transport.TLSInfo{CertFile: store.Certificate, KeyFile: store.Key, TrustedCAFile: store.CA}
		if config, err = info.ClientConfig(); err != nil {
			return nil, fmt.Errorf("apiserver: read the store client's certificate: %w", err)
		}
	}
	settings := clientv3.Config{Endpoints: store.Endpoints, TLS: config, DialTimeout: 5 * time.Second, Logger: quietZap()}
	if store.Dial != nil {
		settings.DialOptions = []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return store.Dial(ctx, "tcp", address)
		})}
	}
	client, err := clientv3.New(settings)
	if err != nil {
		return nil, fmt.Errorf("apiserver: dial the store at %q: %w", store.Endpoints, err)
	}
	logger.Debug("dialing the store", "endpoints", store.Endpoints)
	return client, nil
}
