package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubewait "k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// userCertificate asks the hub for the certificate of a person.
type userCertificate struct {
	name    string
	groups  []string
	out     string
	valid   time.Duration
	approve bool
}

func newUserCertificateCommand(door *connection) *cobra.Command {
	var u userCertificate
	c := &cobra.Command{
		Use:   "user-certificate NAME --out KUBECONFIG",
		Short: "Ask for the certificate of a person, and write a kubeconfig with it",
		Long: `Ask for the client certificate of a person, and write a kubeconfig with it.

The hub signs when somebody has approved the request: "kubectl certificate approve
NAME", or --approve for who may do both. That says who the person is, and nothing
about what they may: bind roles to the name or to a group. The key never leaves
KUBECONFIG. A certificate ends when its time is over; until then take the rights
away to lock somebody out.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			u.name = args[0]
			return u.run(cmd, door)
		},
	}
	c.Flags().StringSliceVar(&u.groups, "group", nil, "group of the person; may be repeated")
	c.Flags().StringVar(&u.out, "out", "", "the kubeconfig to write, a new file (required)")
	c.Flags().DurationVar(&u.valid, "valid", 30*24*time.Hour, "how long, at most a year")
	c.Flags().BoolVar(&u.approve, "approve", false, "approve the request at once, in your own name")
	_ = c.MarkFlagRequired("out") // the flag is there
	return c
}

func (u userCertificate) run(cmd *cobra.Command, door *connection) error {
	if _, err := os.Stat(u.out); err == nil {
		return fmt.Errorf("%s is there already: name a new file", u.out)
	}
	config, err := door.restConfig()
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("open the hub's API: %w", err)
	}
	key, request, err := u.request()
	if err != nil {
		return err
	}
	requests := client.CertificatesV1().CertificateSigningRequests()
	made, err := requests.Create(cmd.Context(), request, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("ask for the certificate of %q: %w", u.name, err)
	}
	if u.approve {
		made.Status.Conditions = append(made.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
			Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "TripodctlApproved", Message: "approved with tripodctl user-certificate --approve",
		})
		if _, err := requests.UpdateApproval(cmd.Context(), made.Name, made, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("approve the request %s: %w", made.Name, err)
		}
	} else {
		fmt.Fprintf(cmd.ErrOrStderr(), "waiting until somebody approves it: kubectl certificate approve %s\n", made.Name)
	}
	certificate, err := awaitCertificate(cmd.Context(), client, made.Name)
	if err != nil {
		return err
	}
	ca, err := door.trusted(cmd.Context(), config)
	if err != nil {
		return err
	}
	if err := u.write(config, ca, certificate, key); err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s is the kubeconfig of %s; bind roles to that name or to the groups %q\n", u.out, u.name, u.groups)
	return nil
}

// request makes a key and a signing request for it.
func (u userCertificate) request() (keyPEM []byte, request *certificatesv1.CertificateSigningRequest, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encode the key: %w", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: u.name, Organization: u.groups}}, key)
	if err != nil {
		return nil, nil, fmt.Errorf("make a signing request: %w", err)
	}
	seconds := int32(min(u.valid.Seconds(), 10*365*24*3600))
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "person-"},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}), SignerName: certificatesv1.KubeAPIServerClientSignerName,
			Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth}, ExpirationSeconds: &seconds,
		},
	}, nil
}

// awaitCertificate waits for the hub's answer to a signing request.
func awaitCertificate(ctx context.Context, client kubernetes.Interface, name string) (certificate []byte, err error) {
	err = kubewait.PollUntilContextCancel(ctx, time.Second/4, true, func(ctx context.Context) (bool, error) {
		request, err := client.CertificatesV1().CertificateSigningRequests().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, fmt.Errorf("read the signing request %s: %w", name, err)
		}
		for _, c := range request.Status.Conditions {
			if c.Type == certificatesv1.CertificateDenied || c.Type == certificatesv1.CertificateFailed {
				return false, errors.New(c.Message)
			}
		}
		certificate = request.Status.Certificate
		return len(certificate) > 0, nil
	})
	return certificate, err
}

// write makes the kubeconfig, with the server of the one in use.
func (u userCertificate) write(config *rest.Config, ca, certificate, key []byte) error {
	k := api.NewConfig()
	k.Clusters["hub"] = &api.Cluster{Server: config.Host, CertificateAuthorityData: ca, TLSServerName: config.ServerName}
	k.AuthInfos[u.name] = &api.AuthInfo{ClientCertificateData: certificate, ClientKeyData: key}
	k.Contexts["hub"] = &api.Context{Cluster: "hub", AuthInfo: u.name}
	k.CurrentContext = "hub"
	text, err := clientcmd.Write(*k)
	if err != nil {
		return fmt.Errorf("encode the kubeconfig: %w", err)
	}
	if err := os.WriteFile(u.out, text, 0o600); err != nil {
		return fmt.Errorf("write the kubeconfig: %w", err)
	}
	return nil
}
