// Package jointoken is the text of a join token and the Secret behind it. It
// imports nothing of Tripod, so that tripodctl, the agent and the hub share it.
//
// A token lets one cluster join one hub once: CLUSTER.ID.SECRET.CAHASH. The
// first part binds it to a cluster's name, the second and third are a
// Kubernetes bootstrap token, and the last pins the hub's CA, so that the agent
// speaks to no impostor.
package jointoken

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// Namespace is where the Secrets of tokens are.
	Namespace = metav1.NamespaceSystem
	// Group is the group of whoever presents a token.
	Group = "system:bootstrappers:tripod"
	// AnnotationCluster on a token's Secret names the cluster it is for.
	AnnotationCluster = "tripod.dev/cluster"
	// AnnotationRejoin, "true" on a token's Secret, allows a cluster that has
	// an agent certificate to get another.
	AnnotationRejoin = "tripod.dev/rejoin"
	// AnnotationUsedBy on a token's Secret is the UID of the signing request
	// that consumed it.
	AnnotationUsedBy = "tripod.dev/used-by"
	// UserPrefix precedes the token's ID in the name of its user.
	UserPrefix = "system:bootstrap:"

	secretPrefix = "bootstrap-token-"
)

// Token is a parsed join token.
type Token struct {
	// Cluster is the name the token is for.
	Cluster string
	// ID is public, six characters; Secret is not, sixteen characters.
	ID, Secret string
	// CAHash is the SHA-256 of the hub CA's public key (SubjectPublicKeyInfo).
	CAHash [sha256.Size]byte
}

var (
	clusterPattern = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	idPattern      = regexp.MustCompile(`^[a-z0-9]{6}$`)
	secretPattern  = regexp.MustCompile(`^[a-z0-9]{16}$`)
)

// New makes a token for cluster at the hub whose CA is ca.
func New(cluster string, ca *x509.Certificate) (Token, error) {
	if !clusterPattern.MatchString(cluster) {
		return Token{}, fmt.Errorf("cluster name %q is not a DNS label: use lower-case letters, digits and '-', 63 characters at most", cluster)
	}
	id, err := randomText(6)
	if err != nil {
		return Token{}, err
	}
	secret, err := randomText(16)
	if err != nil {
		return Token{}, err
	}
	return Token{Cluster: cluster, ID: id, Secret: secret, CAHash: HashCA(ca)}, nil
}

// HashCA is what a token pins of a CA.
func HashCA(ca *x509.Certificate) [sha256.Size]byte { return sha256.Sum256(ca.RawSubjectPublicKeyInfo) }

// String is the token's text. It is a secret.
func (t Token) String() string {
	return strings.Join([]string{t.Cluster, t.ID, t.Secret, hex.EncodeToString(t.CAHash[:])}, ".")
}

// Parse reads a token's text. Errors name the cluster, when it can be told, and
// never the secret.
func Parse(text string) (Token, error) {
	parts := strings.Split(strings.TrimSpace(text), ".")
	cluster := "NAME"
	if clusterPattern.MatchString(parts[0]) {
		cluster = parts[0]
	}
	bad := func(what string) (Token, error) {
		return Token{}, fmt.Errorf("join token is malformed: %s: copy all of it (CLUSTER.ID.SECRET.CAHASH), or make another with `tripodctl join-token %s`", what, cluster)
	}
	if len(parts) != 4 {
		return bad(fmt.Sprintf("it has %d parts, wants 4", len(parts)))
	}
	hash, err := hex.DecodeString(parts[3])
	switch {
	case !clusterPattern.MatchString(parts[0]):
		return bad("its first part is no cluster name")
	case !idPattern.MatchString(parts[1]):
		return bad("its second part is no token ID")
	case !secretPattern.MatchString(parts[2]):
		return bad("its third part is no token secret")
	case err != nil || len(hash) != sha256.Size:
		return bad("its last part is no SHA-256")
	}
	token := Token{Cluster: parts[0], ID: parts[1], Secret: parts[2]}
	copy(token.CAHash[:], hash)
	return token, nil
}

// ForCluster fails unless the token is for cluster.
func (t Token) ForCluster(cluster string) error {
	if t.Cluster != cluster {
		return fmt.Errorf("join token is for cluster %q, this is %q: make one with `tripodctl join-token %s`", t.Cluster, cluster, cluster)
	}
	return nil
}

// Bearer is the bearer token for the hub's Kubernetes API.
func (t Token) Bearer() string { return t.ID + "." + t.Secret }

// User is who the hub's API server says presents the token.
func (t Token) User() string { return UserPrefix + t.ID }

// Rejected explains a 401 from the hub: it no longer knows the token.
func (t Token) Rejected() error {
	return fmt.Errorf("the hub does not accept the join token of cluster %q: it was used, has expired or was revoked: make another with `tripodctl join-token %s`",
		t.Cluster, t.Cluster)
}

// SecretName is the name of the Secret of the token with that ID.
func SecretName(id string) string { return secretPrefix + id }

// NewSecret is the Secret that makes the hub accept t until expires. rejoin
// allows a cluster that has joined to join again.
func (t Token) NewSecret(expires time.Time, rejoin bool) *corev1.Secret {
	secret := &corev1.Secret{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace:   Namespace,
			Name:        SecretName(t.ID),
			Annotations: map[string]string{AnnotationCluster: t.Cluster},
		},
		Type: corev1.SecretTypeBootstrapToken,
		StringData: map[string]string{
			"description":                    "joins cluster " + t.Cluster,
			"token-id":                       t.ID,
			"token-secret":                   t.Secret,
			"expiration":                     expires.UTC().Format(time.RFC3339),
			"usage-bootstrap-authentication": "true",
			"auth-extra-groups":              Group,
		},
	}
	if rejoin {
		secret.Annotations[AnnotationRejoin] = "true"
	}
	return secret
}

// randomText draws n characters of the 36 that bootstrap tokens allow,
// uniformly.
func randomText(n int) (string, error) {
	const alphabet = "0123456789abcdefghijklmnopqrstuvwxyz"
	text := make([]byte, 0, n)
	buffer := make([]byte, 64)
	for len(text) < n {
		if _, err := rand.Read(buffer); err != nil {
			return "", fmt.Errorf("draw a join token: %w", err)
		}
		for _, b := range buffer {
			if int(b) < 256/len(alphabet)*len(alphabet) && len(text) < n {
				text = append(text, alphabet[int(b)%len(alphabet)])
			}
		}
	}
	return string(text), nil
}
