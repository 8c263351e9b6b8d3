package memberagent

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"tripod.dev/tripod/hub/api/endpoint"
	"tripod.dev/tripod/hub/api/jointoken"
)

// Signers and names that the hub's policy for signing requests knows.
const (
	signerAgent = "tripod.dev/agent"
	signerGuard = "tripod.dev/guard"

	agentPrefix       = "tripod:agent:"
	organisationAgent = "tripod:agents"
)

// pollInterval is how often a signing request is looked at.
const pollInterval = 300 * time.Millisecond

// errDenied: the hub has refused the request for good.
var errDenied = errors.New("the hub refused")

// serverNames are the names under which guards reach the agents of a cluster.
func serverNames(cluster string) []string {
	return []string{
		cluster + ".agents.tripod.dev", "tripod-agent.tripod-system.svc", "*.tripod-agent-replicas.tripod-system.svc", "localhost",
	}
}

func newKey() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func parseKey(text []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no PEM block in the key")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse the key: %w", err)
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("the key is %T, wants ECDSA", key)
	}
	return ec, nil
}

// agentRequest asks for exactly the certificate of cluster's agent.
func agentRequest(cluster string, keyPEM []byte) ([]byte, error) {
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: agentPrefix + cluster, Organization: []string{organisationAgent}},
		DNSNames: serverNames(cluster),
	}, key)
	if err != nil {
		return nil, fmt.Errorf("make a signing request: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

// requestName is the same for the same key and the same occasion, so that both
// replicas, and a replica that starts again, look at one request.
func requestName(cluster, signer, occasion string, material []byte) string {
	sum := sha256.Sum256(append([]byte(signer+"\x00"+occasion+"\x00"), material...))
	return "tripod-" + cluster + "-" + hex.EncodeToString(sum[:8])
}

// sign posts a request, unless it is there already, and waits for its
// certificate.
func sign(ctx context.Context, hub kubernetes.Interface, name, signer string, request []byte, usages ...certificatesv1.KeyUsage) ([]byte, error) {
	requests := hub.CertificatesV1().CertificateSigningRequests()
	_, err := requests.Create(ctx, &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: request, SignerName: signer, Usages: append(usages, certificatesv1.UsageDigitalSignature),
		},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return nil, fmt.Errorf("post signing request %q: %w", name, err)
	}
	for {
		posted, err := requests.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return nil, fmt.Errorf("read signing request %q: %w", name, err)
		}
		for _, c := range posted.Status.Conditions {
			if c.Type == certificatesv1.CertificateDenied || c.Type == certificatesv1.CertificateFailed {
				return nil, fmt.Errorf("%w: %s", errDenied, c.Message)
			}
		}
		if len(posted.Status.Certificate) > 0 {
			return posted.Status.Certificate, nil
		}
		if err := sleep(ctx, pollInterval); err != nil {
			return nil, fmt.Errorf("wait for signing request %q: %w", name, err)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// hubWithToken reaches the hub as the bearer of a join token. ca is called with
// the hub's CA, which the token pins.
func hubWithToken(members []string, token jointoken.Token, ca func(*x509.Certificate)) (kubernetes.Interface, error) {
	return hubClient(&rest.Config{
		BearerToken: token.Bearer(),
		Transport:   &http.Transport{TLSClientConfig: token.TLS(endpoint.ServerName, ca), DialContext: endpoint.Dialer(members), IdleConnTimeout: time.Minute},
	})
}

// hubWithCertificate reaches the hub as the agent.
func hubWithCertificate(members []string, c *credentials) (kubernetes.Interface, error) {
	return hubClient(&rest.Config{
		Transport: &http.Transport{TLSClientConfig: c.clientTLS(), DialContext: endpoint.Dialer(members), IdleConnTimeout: time.Minute},
	})
}

func hubClient(config *rest.Config) (kubernetes.Interface, error) {
	config.Host = "https://" + endpoint.ServerName
	config.Timeout = 10 * time.Second
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make the client of the hub: %w", err)
	}
	return client, nil
}
