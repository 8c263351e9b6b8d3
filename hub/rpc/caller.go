package rpc

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"

	hubv1 "tripod.dev/tripod/proto/hub/v1"
)

type callerKey struct{}

// Authenticated are the interceptors that find out who calls Admin: whom a bearer
// token in the call's metadata ("authorization: Bearer …") names by the gateway's
// authenticator, or else the client certificate of the connection. A token that is
// not good is refused, also if there is a good certificate beside it. Every other
// service of the port is for certificates of the hub's CA alone.
func Authenticated(authenticate authenticator.Request) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
			ctx, err := admit(ctx, info.FullMethod, authenticate)
			if err != nil {
				return nil, err
			}
			return handle(ctx, request)
		}),
		grpc.ChainStreamInterceptor(func(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
			ctx, err := admit(stream.Context(), info.FullMethod, authenticate)
			if err != nil {
				return err
			}
			return handle(server, known{stream, ctx})
		}),
	}
}

// known is a stream whose caller is known.
type known struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // grpc asks a stream for its context
}

func (k known) Context() context.Context { return k.ctx }

func admit(ctx context.Context, method string, authenticate authenticator.Request) (context.Context, error) {
	if !strings.HasPrefix(method, "/"+hubv1.Admin_ServiceDesc.ServiceName+"/") {
		_, err := verified(ctx)
		return ctx, err
	}
	who, err := identify(ctx, authenticate)
	if err != nil {
		return nil, err
	}
	return context.WithValue(ctx, callerKey{}, who), nil
}

// calling is who calls.
func calling(ctx context.Context) (user.Info, error) {
	if who, ok := ctx.Value(callerKey{}).(user.Info); ok {
		return who, nil
	}
	return identify(ctx, nil)
}

func caller(ctx context.Context) (name string, groups []string, err error) {
	who, err := calling(ctx)
	if err != nil {
		return "", nil, err
	}
	return who.GetName(), who.GetGroups(), nil
}

func identify(ctx context.Context, authenticate authenticator.Request) (user.Info, error) {
	request := &http.Request{Header: http.Header{}}
	given, _ := metadata.FromIncomingContext(ctx)
	if token := given.Get("authorization"); len(token) > 0 {
		kind, _, _ := strings.Cut(token[0], " ")
		if authenticate == nil || len(token) > 1 || !strings.EqualFold(kind, "bearer") {
			return nil, status.Error(codes.Unauthenticated, "show one bearer token, or a client certificate")
		}
		request.Header.Set("Authorization", token[0])
		return ask(ctx, authenticate, request)
	}
	state, err := verified(ctx)
	if err != nil {
		return nil, err
	}
	named, err := fromCertificate(state)
	if err != nil || slices.Contains(named.GetGroups(), MembersOrganization) || authenticate == nil {
		return named, err // members speak with each other whatever a list says
	}
	request.TLS = state
	return ask(ctx, authenticate, request)
}

// trusted callers need no API server that works; see Authorize. No token names
// these groups: the gateway's authenticator refuses one that does.
func trusted(u user.Info) bool {
	return slices.Contains(u.GetGroups(), MembersOrganization) || slices.Contains(u.GetGroups(), user.SystemPrivilegedGroup)
}

func ask(ctx context.Context, authenticate authenticator.Request, request *http.Request) (user.Info, error) {
	response, ok, err := authenticate.AuthenticateRequest(request.WithContext(ctx))
	if err != nil {
		return nil, status.Errorf(codes.Unauthenticated, "the hub does not accept these credentials: %v", err)
	}
	if !ok || response.User.GetName() == "" || response.User.GetName() == user.Anonymous {
		return nil, status.Error(codes.Unauthenticated, "the hub does not accept these credentials")
	}
	return response.User, nil
}

// verified is the connection's TLS state, with a certificate that the hub's CA has
// signed.
func verified(ctx context.Context) (*tls.ConnectionState, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, status.Error(codes.Unauthenticated, "the caller is unknown")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 || len(info.State.VerifiedChains) == 0 {
		return nil, status.Error(codes.Unauthenticated, "show a client certificate of the hub's CA, for instance that of admin.kubeconfig, or a bearer token")
	}
	return &info.State, nil
}

// fromCertificate reads the subject as Kubernetes does: the common name is the
// user, the organizations are the groups.
func fromCertificate(state *tls.ConnectionState) (user.Info, error) {
	subject := state.PeerCertificates[0].Subject
	if strings.TrimSpace(subject.CommonName) == "" {
		return nil, status.Error(codes.Unauthenticated, fmt.Sprintf("the client certificate %q names no user", subject))
	}
	return &user.DefaultInfo{Name: subject.CommonName, Groups: subject.Organization}, nil
}
