package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

const (
	fileAdminKubeconfig = "admin.kubeconfig"
	adminValidity       = 365 * 24 * time.Hour
)

// writeAdminKubeconfig issues an administrator's certificate and writes the
// kubeconfig that holds it: contexts hub and fleet of this member.
func (i *Identity) writeAdminKubeconfig() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("identity: make the administrator's key: %w", err)
	}
	now := i.trust.Load()
	der, err := now.issuer().issue(leaf{
		commonName:    AdminName,
		organisations: KindAdmin.organisations(),
		usages:        []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		validity:      adminValidity,
	}, key.Public(), i.config.Now())
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	server := "https://" + net.JoinHostPort(i.config.Advertise, strconv.Itoa(i.config.APIPort))
	data, err := clientcmd.Write(adminKubeconfig(server, now.certificatesPEM(), encodeCertificate(der), keyPEM))
	if err != nil {
		return fmt.Errorf("identity: encode %s: %w", fileAdminKubeconfig, err)
	}
	if err := writeFile(filepath.Join(i.config.DataDir, fileAdminKubeconfig), data); err != nil {
		return err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	i.admin.Store(cert)
	return nil
}

func adminKubeconfig(server string, ca, cert, key []byte) clientcmdapi.Config {
	config := *clientcmdapi.NewConfig()
	config.AuthInfos[AdminName] = &clientcmdapi.AuthInfo{ClientCertificateData: cert, ClientKeyData: key}
	for name, path := range map[string]string{"hub": "", "fleet": "/fleet"} {
		config.Clusters[name] = &clientcmdapi.Cluster{Server: server + path, CertificateAuthorityData: ca}
		config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: AdminName}
	}
	config.CurrentContext = "hub"
	return config
}
