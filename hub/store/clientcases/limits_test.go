package clientcases_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/store/etcdapi"
	"tripod.dev/tripod/hub/store/storetest"
)

func TestLimits(t *testing.T) {
	t.Parallel()
	const limit = 1 << 20
	c := storetest.Start(t, 3, func(s *store.Config, a *etcdapi.Config) {
		steady(s, a)
		s.MaxRequestBytes, a.MaxRequestBytes, a.MaxTxnOps = limit, limit, 8
	})
	for name, run := range map[string]func(*testing.T, *session){
		"bytes of a request":         func(t *testing.T, s *session) { limitBytes(t, s, limit) },
		"bytes of a response":        limitResponse,
		"operations of one":          limitOperations,
		"many streams":               limitStreams,
		"pings that come too often":  func(t *testing.T, s *session) { limitPings(t, c, s) },
		"certificates of the others": func(t *testing.T, s *session) { limitCertificates(t, c, s) },
	} {
		t.Run(name, func(t *testing.T) { everywhere(t, c, run) })
	}
}

// limitBytes: over the limit etcd's error says so; far over it gRPC's, before the
// request is read.
func limitBytes(t *testing.T, s *session, limit int) {
	for name, test := range map[string]struct {
		size int
		want error
		code codes.Code
	}{
		"well under it": {limit / 2, nil, codes.OK},
		"just under it": {limit - 1024, nil, codes.OK},
		"the limit":     {limit, rpctypes.ErrGRPCRequestTooLarge, codes.InvalidArgument},
		"over it":       {limit + 1024, rpctypes.ErrGRPCRequestTooLarge, codes.InvalidArgument},
		"far over it":   {limit + 1024*1024, nil, codes.ResourceExhausted},
	} {
		request := putRequest("bytes")
		request.Value = make([]byte, test.size)
		_, err := s.kv().Put(s.ctx, request)
		if status.Code(err) != test.code || test.want != nil && !isStatus(err, test.want) {
			t.Errorf("%s: %v, want code %s", name, err, test.code)
		}
	}
	if _, err := s.Put(s.ctx, "bytes", strings.Repeat("v", 3*limit)); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("over the client's own limit: %v", err)
	}
	s.delete("bytes")
}

// limitResponse: only requests are bounded.
func limitResponse(t *testing.T, s *session) {
	for i := range 8 {
		s.put(fmt.Sprintf("response%d", i), strings.Repeat("v", 700*1024))
	}
	r := s.get("response", clientv3.WithPrefix())
	if len(r.Kvs) != 8 {
		t.Errorf("%d keys", len(r.Kvs))
	}
	s.delete("response", clientv3.WithPrefix())
}

func limitOperations(t *testing.T, s *session) {
	for n, want := range map[int]error{8: nil, 9: rpctypes.ErrTooManyOps} {
		var ops []clientv3.Op
		for i := range n {
			ops = append(ops, clientv3.OpPut(fmt.Sprintf("ops%d", i), "v"))
		}
		if _, err := s.Txn(s.ctx).Then(ops...).Commit(); !errors.Is(err, want) {
			t.Errorf("%d operations: %v, want %v", n, err, want)
		}
	}
}

// limitStreams opens more streams on one connection than HTTP/2 servers commonly
// allow; every one is served while the others are open.
func limitStreams(t *testing.T, s *session) {
	const streams = 500
	revision := s.put("streams", "v").Header.Revision
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	var wg sync.WaitGroup
	for i := range streams {
		wg.Go(func() {
			r, ok := <-s.Watch(stream(ctx, i), "streams", clientv3.WithRev(revision))
			if !ok || r.Err() != nil || len(r.Events) != 1 {
				t.Errorf("stream %d: %+v %v", i, r, r.Err())
			}
		})
	}
	wg.Wait()
	s.get("streams")
}

// limitPings speaks HTTP/2 by hand: grpc-go's client never pings too often.
func limitPings(t *testing.T, c *storetest.Cluster, s *session) {
	config := c.CA.Identity(t, "tripod:admin", etcdapi.AdminsOrganization)
	config.NextProtos, config.ServerName = []string{"h2"}, "127.0.0.1"
	conn, err := (&tls.Dialer{Config: config}).DialContext(s.ctx, "tcp", s.member.Address.PeerAddress)
	s.check("dial", err)
	defer conn.Close()
	deadline, _ := s.ctx.Deadline()
	s.check("deadline", conn.SetDeadline(deadline))
	_, err = io.WriteString(conn, http2.ClientPreface)
	s.check("preface", err)
	framer := http2.NewFramer(conn, conn)
	s.check("settings", framer.WriteSettings())
	for range 10 {
		// The member may have closed the connection already.
		if framer.WritePing(false, [8]byte{}) != nil {
			break
		}
	}
	for {
		frame, err := framer.ReadFrame()
		s.check("the member has not refused the pings; read", err)
		if away, ok := frame.(*http2.GoAwayFrame); ok {
			if away.ErrCode != http2.ErrCodeEnhanceYourCalm || string(away.DebugData()) != "too_many_pings" {
				t.Errorf("refused with %v %q", away.ErrCode, away.DebugData())
			}
			return
		}
	}
}

func limitCertificates(t *testing.T, c *storetest.Cluster, s *session) {
	foreign := storetest.NewCA(t)
	none := c.CA.Identity(t, "x", etcdapi.AdminsOrganization)
	none.Certificates = nil
	unknown := foreign.Identity(t, "tripod:admin", etcdapi.AdminsOrganization)
	trusting := unknown.Clone()
	trusting.RootCAs = none.RootCAs
	for name, test := range map[string]struct {
		config *tls.Config
		want   codes.Code
	}{
		"no certificate":          {none, codes.Unavailable},
		"another authority's":     {trusting, codes.Unavailable},
		"who trusts another":      {unknown, codes.Unavailable},
		"another organization's":  {c.CA.Identity(t, "agent", "tripod:agents"), codes.PermissionDenied},
		"an administrator's":      {c.CA.Identity(t, "tripod:admin", etcdapi.AdminsOrganization), codes.OK},
		"no TLS (a nil identity)": {nil, codes.Unavailable},
	} {
		creds := grpc.WithTransportCredentials(credentials.NewTLS(test.config))
		if test.config == nil {
			creds = grpc.WithTransportCredentials(insecure.NewCredentials())
		}
		conn, err := grpc.NewClient("passthrough:///"+s.member.Address.PeerAddress, creds)
		s.check("client", err)
		_, err = pb.NewKVClient(conn).Put(s.ctx, putRequest("certificate"))
		if status.Code(err) != test.want {
			t.Errorf("%s: %v, want %s", name, err, test.want)
		}
		_ = conn.Close()
	}
}
