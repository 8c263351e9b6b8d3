package hub

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apiserver/pkg/storage/value"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"tripod.dev/tripod/hub/api/endpoint"
	"tripod.dev/tripod/hub/encryption"
	"tripod.dev/tripod/hub/encryption/encryptiontest"
	hubstore "tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/store/storetest"
	"tripod.dev/tripod/hub/term"
	hubv1 "tripod.dev/tripod/proto/hub/v1"
)

// order does something at a member's gRPC API.
func (f *fleet) order(p *process, do func(context.Context, hubv1.AdminClient) error) error {
	f.t.Helper()
	config, err := rest.TLSConfigFor(f.api(p))
	if err != nil {
		f.t.Fatal(err)
	}
	config.ServerName, config.NextProtos = endpoint.ServerName, []string{"h2"}
	conn, err := grpc.NewClient("passthrough:///"+net.JoinHostPort(p.Address, RPCPort), grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		f.t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	defer cancel()
	return do(ctx, hubv1.NewAdminClient(conn))
}

// rotate orders a rotation at a member.
func (f *fleet) rotate(p *process) (message string, err error) {
	f.t.Helper()
	err = f.order(p, func(ctx context.Context, admin hubv1.AdminClient) error {
		answer, err := admin.RotateEncryption(ctx, &hubv1.RotateEncryptionRequest{})
		message = answer.GetMessage()
		return err
	})
	return message, err
}

// upkeep has a member compact, and every member, whoever leads, rewrite its database.
func (f *fleet) upkeep(p *process) {
	f.t.Helper()
	if err := f.order(p, func(ctx context.Context, admin hubv1.AdminClient) error {
		answer, err := admin.Compact(ctx, &hubv1.CompactRequest{Keep: 10})
		if err == nil && answer.GetRevision() == 0 {
			err = errors.New("nothing was compacted")
		}
		return err
	}); err != nil {
		f.t.Errorf("compact: %v", err)
	}
	for _, each := range f.members {
		f.eventually("defragment "+each.name, func(context.Context) error {
			return f.order(p, func(ctx context.Context, admin hubv1.AdminClient) error {
				_, err := admin.Defragment(ctx, &hubv1.DefragmentRequest{Name: each.name})
				return err
			})
		})
	}
	if err := f.order(p, func(ctx context.Context, admin hubv1.AdminClient) error {
		_, err := admin.Defragment(ctx, &hubv1.DefragmentRequest{Name: "nobody"})
		return err
	}); status.Code(err) != codes.NotFound {
		f.t.Errorf("defragment nobody: %v", err)
	}
}

func (f *fleet) ring(p *process) encryption.Ring {
	f.t.Helper()
	text, err := os.ReadFile(filepath.Join(p.Data, "pki", "encryption.yaml"))
	if err != nil {
		f.t.Fatal(err)
	}
	ring, err := encryption.ParseRing(text)
	if err != nil {
		f.t.Fatal(err)
	}
	return ring
}

// holding names the files below the folder that hold one of the texts.
func (f *fleet) holding(dir string, texts ...string) []string {
	f.t.Helper()
	var found []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		for _, text := range texts {
			if bytes.Contains(content, []byte(text)) {
				found = append(found, path)
			}
		}
		return err
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return found
}

const canary = "canary-7f3a9c51-do-not-keep-me"

// canaries hold the canary in every kind whose objects people write, in a field
// where they have it or else in an annotation. Plans, runs and approvals are not
// among them: the audit log has them with their content, on purpose.
const canaries = `
apiVersion: v1
kind: Secret
metadata: {name: c, namespace: default}
stringData: {password: CANARY}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: c, namespace: default}
data: {password: CANARY}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: c, namespace: default}
spec:
  selector: {matchLabels: {app: c}}
  template:
    metadata: {labels: {app: c}}
    spec: {containers: [{name: c, image: c, env: [{name: PASSWORD, value: CANARY}]}]}
---
apiVersion: tripod.dev/v1alpha1
kind: Cluster
metadata: {name: c1, annotations: {password: CANARY}}
spec: {region: r, center: c0}
---
apiVersion: tripod.dev/v1alpha1
kind: Dataset
metadata: {name: c, namespace: default}
spec: {driver: postgresql, members: [{cluster: c1, address: "192.0.2.1:5432", parameters: {password: CANARY}}]}
---
apiVersion: tripod.dev/v1alpha1
kind: Placement
metadata: {name: c, namespace: default, annotations: {password: CANARY}}
spec: {resources: [{apiVersion: v1, kind: Secret, name: c}], clusters: {names: [c1]}}
---
apiVersion: tripod.dev/v1alpha1
kind: GlobalService
metadata: {name: c, namespace: default, annotations: {password: CANARY}}
spec: {host: c.example.test, endpoints: [{cluster: c1, address: 192.0.2.1}]}
---
apiVersion: tripod.dev/v1alpha1
kind: Application
metadata: {name: c, namespace: default, annotations: {password: CANARY}}
spec: {placements: [c], datasets: [c]}
`

func (f *fleet) objects() []*unstructured.Unstructured {
	f.t.Helper()
	var out []*unstructured.Unstructured
	for _, text := range strings.Split(strings.ReplaceAll(canaries, "CANARY", canary), "---\n") {
		object := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(text), &object.Object); err != nil {
			f.t.Fatal(err)
		}
		out = append(out, object)
	}
	return out
}

func resourceOf(client dynamic.Interface, object *unstructured.Unstructured) dynamic.ResourceInterface {
	gvk := object.GroupVersionKind()
	kind := client.Resource(gvk.GroupVersion().WithResource(strings.ToLower(gvk.Kind) + "s"))
	if object.GetNamespace() == "" {
		return kind
	}
	return kind.Namespace(object.GetNamespace())
}

// readable says whether a member gives out every canary.
func (f *fleet) readable(p *process) {
	f.t.Helper()
	client, err := dynamic.NewForConfig(f.api(p))
	if err != nil {
		f.t.Fatal(err)
	}
	for _, object := range f.objects() {
		got, err := resourceOf(client, object).Get(f.t.Context(), object.GetName(), metav1.GetOptions{})
		if err != nil {
			f.t.Errorf("read %s from %s: %v", object.GetKind(), p.name, err)
			continue
		}
		text, err := got.MarshalJSON()
		if err != nil {
			f.t.Fatal(err)
		}
		if !strings.Contains(string(text), canary) && !strings.Contains(string(text), base64.StdEncoding.EncodeToString([]byte(canary))) {
			f.t.Errorf("%s from %s has lost the canary: %s", object.GetKind(), p.name, text)
		}
	}
}

// TestNothingIsKeptInPlainText writes canaries through the API of three members and
// rotates the key, compacts and defragments; and looks for them in every file of
// every member and in a backup.
func TestNothingIsKeptInPlainText(t *testing.T) {
	if testing.Short() {
		t.Skip("three members start")
	}
	f := startFleet(t)
	client, err := dynamic.NewForConfig(f.api(f.members[1]))
	if err != nil {
		t.Fatal(err)
	}
	for _, object := range f.objects() {
		f.eventually("create "+object.GetKind(), func(ctx context.Context) error {
			_, err := resourceOf(client, object).Create(ctx, object, metav1.CreateOptions{})
			return err
		})
	}
	f.control(f.members[0])
	first := f.ring(f.members[0])
	if len(first) != 1 {
		t.Fatalf("a new hub has the keys %v", first.Names())
	}

	third := f.members[2]
	f.api(third) // it is there
	third.Stop()
	if _, err := f.rotate(f.members[0]); err == nil || !strings.Contains(err.Error(), "hub-c") {
		t.Errorf("a rotation while a member is missing: %v", err)
	}
	f.start(third)
	for _, p := range f.members {
		f.readable(p)
	}
	message, err := f.rotate(f.members[1])
	if err != nil {
		t.Fatal(err)
	}
	t.Log(message)
	second := f.ring(f.members[0])
	for _, p := range f.members {
		if ring := f.ring(p); len(ring) != 1 || ring[0] == first[0] || ring[0] != second[0] {
			t.Errorf("%s has the keys %v after the rotation, before it %v", p.name, ring.Names(), first.Names())
		}
		f.readable(p)
	}
	f.upkeep(third)
	f.members[0].Stop() // and from its disk
	f.start(f.members[0])
	f.readable(f.members[0])
	for _, p := range f.members {
		p.Stop()
	}
	f.leaks(second[0].Name)
	for _, p := range f.members {
		f.start(p)
	}
	f.readable(third)
}

// control writes a text past the API, which must be found: the search works.
func (f *fleet) control(p *process) {
	f.t.Helper()
	pki := filepath.Join(p.Data, "pki")
	certificate, err := tls.LoadX509KeyPair(filepath.Join(pki, "member.crt"), filepath.Join(pki, "member.key"))
	if err != nil {
		f.t.Fatal(err)
	}
	config, err := rest.TLSConfigFor(f.api(p))
	if err != nil {
		f.t.Fatal(err)
	}
	config.Certificates = []tls.Certificate{certificate}
	config.GetClientCertificate = nil
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"https://" + net.JoinHostPort(p.Address, EtcdPort)}, TLS: config, Logger: zap.NewNop()})
	if err != nil {
		f.t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	defer cancel()
	if _, err := client.Put(ctx, "/control", "control-of-the-search"); err != nil {
		f.t.Fatal(err)
	}
}

// leaks looks into the files of members that do not run, and into a backup.
func (f *fleet) leaks(key string) {
	t := f.t
	t.Helper()
	encoded := base64.StdEncoding.EncodeToString([]byte(canary))
	for _, p := range f.members {
		if found := f.holding(p.Data, canary, encoded); len(found) > 0 {
			t.Errorf("%s keeps the canary in plain text in %v", p.name, found)
		}
		control := strings.Join(f.holding(filepath.Join(p.Data, "store"), "control-of-the-search"), " ")
		if !strings.Contains(control, "/db") || !strings.Contains(control, ".wal") {
			t.Errorf("%s: the search does not find what is there, in log and database: %q", p.name, control)
		}
	}
	config, err := LoadConfig(f.members[0].Config)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "hub.backup")
	if err := BackUp(t.Context(), config, file); err != nil {
		t.Fatal(err)
	}
	if found := f.holding(filepath.Dir(file), canary, encoded); len(found) > 0 {
		t.Error("the backup holds the canary in plain text")
	}
	if found := f.holding(filepath.Dir(file), "control-of-the-search"); len(found) != 1 {
		t.Error("the search does not find what is in the backup")
	}
	// Another hub's pki, and then this one's.
	restored := config
	restored.DataDir = t.TempDir()
	if err := os.CopyFS(filepath.Join(restored.DataDir, "pki"), os.DirFS(filepath.Join(f.members[0].Data, "pki"))); err != nil {
		t.Fatal(err)
	}
	other, err := encryption.NewKey(time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	text, err := encryption.Ring{other}.Text()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(restored.DataDir, "pki", "encryption.yaml")
	right := readText(t, path)
	f.write(path, string(text))
	founding := Founding{Config: restored, Backup: file, Logger: slog.New(slog.DiscardHandler)}
	if _, err := founding.Draft(t.Context()); err == nil || !strings.Contains(err.Error(), key) || !strings.Contains(err.Error(), "folder pki") {
		t.Errorf("a restore without the key: %v", err)
	}
	f.write(path, right)
	if _, err := founding.Draft(t.Context()); err != nil {
		t.Errorf("a restore with the key: %v", err)
	}
}

func readText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestSensesReadWhatTheAPIServerEncrypts.
func TestSensesReadWhatTheAPIServerEncrypts(t *testing.T) {
	c := storetest.Start(t, 1, nil)
	m := c.Leader()
	path := encryptiontest.File(t)
	box, err := encryption.Open(t.Context(), path, "test")
	if err != nil {
		t.Fatal(err)
	}
	at := term.DefaultPrefix + "datasets/default/d"
	stored, err := box.Transformers().TransformerForResource(encryption.BelowAPI[1]).TransformToStorage(
		t.Context(), []byte(`{"metadata":{"name":"d","namespace":"default"},"status":{"primary":"c1"}}`), value.DefaultContext(at))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Store.Propose(t.Context(), hubstore.Put(&pb.PutRequest{Key: []byte(at), Value: stored})); err != nil {
		t.Fatal(err)
	}
	datasets, _, err := term.NewCommitted(decrypted{m.Store, box}, term.DefaultPrefix, term.Monotonic(), nil).Datasets(t.Context())
	if err != nil || len(datasets) != 1 || datasets[0].Status.Primary != "c1" {
		t.Errorf("got %v %v", datasets, err)
	}
}
