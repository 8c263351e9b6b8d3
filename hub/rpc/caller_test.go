package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"

	hubv1 "tripod.dev/tripod/proto/hub/v1"

	"tripod.dev/tripod/test/authority"
)

// whoami answers Status with the caller's name.
type whoami struct{ hubv1.UnimplementedAdminServer }

func (whoami) Status(ctx context.Context, _ *hubv1.StatusRequest) (*hubv1.StatusResponse, error) {
	name, _, err := caller(ctx)
	return &hubv1.StatusResponse{Member: name}, err
}

// directory believes one token, and every certificate but dan's.
func directory() authenticator.Request {
	return authenticator.RequestFunc(func(r *http.Request) (*authenticator.Response, bool, error) {
		if token := r.Header.Get("Authorization"); token != "" {
			if token == "Bearer ann's" {
				return &authenticator.Response{User: &user.DefaultInfo{Name: "ann"}}, true, nil
			}
			return nil, false, errors.New("no such token")
		}
		name := r.TLS.PeerCertificates[0].Subject.CommonName
		if name == "dan" {
			return nil, false, errors.New("dan is denied")
		}
		return &authenticator.Response{User: &user.DefaultInfo{Name: name}}, true, nil
	})
}

func TestWhoCallsAdmin(t *testing.T) {
	ca := authority.New(t, "ca")
	pool := ca.Pool()
	server := grpc.NewServer(append(Authenticated(directory()), grpc.Creds(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{ca.Issue(t, "hub")}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool,
	})))...)
	hubv1.RegisterAdminServer(server, whoami{})
	hubv1.RegisterPeerServer(server, hubv1.UnimplementedPeerServer{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	for name, test := range map[string]struct {
		certificate string
		groups      []string
		tokens      []string
		want        string
	}{
		"a certificate":                       {certificate: "bob", want: "bob"},
		"a token":                             {tokens: []string{"Bearer ann's"}, want: "ann"},
		"a token counts before a certificate": {certificate: "bob", tokens: []string{"Bearer ann's"}, want: "ann"},
		"a wrong token":                       {tokens: []string{"Bearer nobody's"}},
		"a wrong token beside a certificate":  {certificate: "bob", tokens: []string{"Bearer nobody's"}},
		"two tokens":                          {tokens: []string{"Bearer ann's", "Bearer ann's"}},
		"an empty token":                      {tokens: []string{""}},
		"another way of showing who one is":   {tokens: []string{"Basic YW5uOg=="}},
		"nothing":                             {},
		"a certificate that is denied":        {certificate: "dan"},
		"a denied name of a member":           {certificate: "dan", groups: []string{MembersOrganization}, want: "dan"},
	} {
		t.Run(name, func(t *testing.T) {
			config := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, ServerName: "hub"}
			if test.certificate != "" {
				config.Certificates = []tls.Certificate{ca.Issue(t, test.certificate, test.groups...)}
			}
			conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(config)))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			ctx := t.Context()
			for _, token := range test.tokens {
				ctx = metadata.AppendToOutgoingContext(ctx, "authorization", token)
			}
			answer, err := hubv1.NewAdminClient(conn).Status(ctx, &hubv1.StatusRequest{})
			if test.want == "" {
				if status.Code(err) != codes.Unauthenticated {
					t.Errorf("got %q, %v; want that it is refused", answer.GetMember(), err)
				}
			} else if answer.GetMember() != test.want || err != nil {
				t.Errorf("got %q, %v; want %q", answer.GetMember(), err, test.want)
			}
			// The services of agents and members want a certificate, and no token helps.
			_, err = hubv1.NewPeerClient(conn).Direct(ctx, &hubv1.DirectRequest{})
			if want := map[bool]codes.Code{true: codes.Unimplemented, false: codes.Unauthenticated}[test.certificate != ""]; status.Code(err) != want {
				t.Errorf("another service answers %v, want %v", err, want)
			}
		})
	}
}
