package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"tripod.dev/tripod/hub/api/audittrail"
	"tripod.dev/tripod/hub/apiserver"
	"tripod.dev/tripod/hub/audit"
)

// AuditConfig says where audit events go. What is recorded is said by
// auditPolicyFile. The names in brackets are kube-apiserver's flags.
type AuditConfig struct {
	// Path of the file that is written (--audit-log-path); default
	// DATADIR/apiserver/audit/audit.log.
	Path string `json:"path,omitempty"`
	// MaxSizeMB is the size at which a file is ended and the next begun
	// (--audit-log-maxsize); default 100.
	MaxSizeMB int `json:"maxSizeMB,omitempty"`
	// MaxBackups is how many ended files are kept (--audit-log-maxbackup), default
	// 10, and MaxAgeDays for how long (--audit-log-maxage), default 30.
	MaxBackups int `json:"maxBackups,omitempty"`
	MaxAgeDays int `json:"maxAgeDays,omitempty"`
	// WebhookConfigFile is a kubeconfig whose server is sent every event as well
	// (--audit-webhook-config-file); empty sends nothing.
	WebhookConfigFile string `json:"webhookConfigFile,omitempty"`
}

func (c AuditConfig) validate() error {
	if c.MaxSizeMB < 0 || c.MaxBackups < 0 || c.MaxAgeDays < 0 {
		return errors.New("audit has a negative maxSizeMB, maxBackups or maxAgeDays: leave it out for the default")
	}
	return nil
}

// publishEvery is how often a member publishes the head of its audit log.
const publishEvery = time.Minute

// openAudit opens this member's audit log.
func (m *Member) openAudit(context.Context) error {
	c := m.config.Audit
	path := c.Path
	if path == "" {
		path = filepath.Join(m.config.DataDir, "apiserver", "audit", "audit.log")
	}
	var err error
	m.audit, err = audit.Open(audit.Config{
		Path: path, Member: m.config.Name, Key: m.identity.EvidenceKey(),
		MaxBytes: int64(c.MaxSizeMB) << 20, MaxFiles: c.MaxBackups, MaxAge: time.Duration(c.MaxAgeDays) * 24 * time.Hour,
		Logger: m.logger,
	})
	if err != nil {
		return err
	}
	return m.audit.Register(m.metrics)
}

func (m *Member) auditing() apiserver.Audit {
	return apiserver.Audit{Log: m.audit, PolicyFile: m.config.AuditPolicyFile, WebhookConfigFile: m.config.Audit.WebhookConfigFile}
}

// publishAudit publishes the heads of this member's audit log in the hub's store, so
// that the log cannot be cut or replaced on this member's disk unseen.
func (m *Member) publishAudit(ctx context.Context) error {
	api, err := corev1client.NewForConfig(m.apiserver.Loopback())
	if err != nil {
		return fmt.Errorf("make a client of the hub's API: %w", err)
	}
	ticker := time.NewTicker(publishEvery)
	defer ticker.Stop()
	var published audittrail.Head
	for {
		if head := m.audit.Head(); head != published {
			if err := publishHead(ctx, api, head); err != nil {
				m.logger.Info("head of the audit log is not published yet", "sequence", head.Sequence, "error", err)
			} else {
				published = head
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

func publishHead(ctx context.Context, api corev1client.CoreV1Interface, head audittrail.Head) error {
	text, err := json.Marshal(head)
	if err != nil {
		return fmt.Errorf("encode the head: %w", err)
	}
	data := map[string]string{head.Key(): string(text)}
	patch, err := json.Marshal(map[string]any{"data": data})
	if err != nil {
		return fmt.Errorf("encode the head: %w", err)
	}
	maps := api.ConfigMaps(audittrail.Namespace)
	_, err = maps.Patch(ctx, audittrail.ConfigMap, types.MergePatchType, patch, metav1.PatchOptions{})
	if !apierrors.IsNotFound(err) {
		return err
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: audittrail.Namespace}}
	if _, err := api.Namespaces().Create(ctx, namespace, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	_, err = maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: audittrail.ConfigMap}, Data: data}, metav1.CreateOptions{})
	return err
}
