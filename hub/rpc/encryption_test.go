package rpc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	hubv1 "tripod.dev/tripod/proto/hub/v1"
)

// keeper notes the keys that it is given.
type keeper struct {
	Encryption
	set []byte
}

func (k *keeper) Set(configuration []byte) error {
	k.set = configuration
	return nil
}

func TestOnlyMembersGiveKeys(t *testing.T) {
	tests := map[string]struct {
		groups []string
		want   codes.Code
	}{
		"a member may":          {[]string{MembersOrganization}, codes.OK},
		"an administrator not":  {[]string{"tripod:admins", "system:masters"}, codes.PermissionDenied},
		"an agent not":          {[]string{"tripod:agents"}, codes.PermissionDenied},
		"a person without role": {nil, codes.PermissionDenied},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			certificates := []*x509.Certificate{{Subject: pkix.Name{CommonName: "x", Organization: test.groups}}}
			ctx := peer.NewContext(context.Background(), &peer.Peer{AuthInfo: credentials.TLSInfo{State: tls.ConnectionState{
				PeerCertificates: certificates, VerifiedChains: [][]*x509.Certificate{certificates},
			}}})
			keys := &keeper{}
			_, err := NewAdmin(Config{Encryption: keys}).SetEncryption(ctx, &hubv1.SetEncryptionRequest{Configuration: []byte("keys")})
			if status.Code(err) != test.want || (string(keys.set) == "keys") != (test.want == codes.OK) {
				t.Errorf("got %v, keys %q", err, keys.set)
			}
		})
	}
	if _, err := NewAdmin(Config{}).SetEncryption(context.Background(), &hubv1.SetEncryptionRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("nobody: %v", err)
	}
}
