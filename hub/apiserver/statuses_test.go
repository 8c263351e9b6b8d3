package apiserver

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/hub/encryption"
	"tripod.dev/tripod/hub/encryption/encryptiontest"
)

// typed is a client of Tripod's kinds.
func (h *hub) typed(t testing.TB, config *rest.Config) client.WithWatch {
	t.Helper()
	<-h.server.Ready()
	scheme, err := tripodScheme()
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.NewWithWatch(config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func testRun(name string) *v1alpha1.RecoveryRun {
	run := &v1alpha1.RecoveryRun{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"of": "a-test"}},
		Spec: v1alpha1.RecoveryRunSpec{Action: v1alpha1.ActionFailover, From: v1alpha1.Place{Cluster: "north"}, To: v1alpha1.Place{Cluster: "south"}}}
	run.Spec.Application.Namespace, run.Spec.Application.Name = "default", name
	return run
}

// startEncryptedHub starts a hub that encrypts everything in its store, and says where
// that is.
func startEncryptedHub(t *testing.T) (h *hub, endpoint string) {
	t.Helper()
	path := encryptiontest.File(t)
	h = startHub(t, func(c *Config) {
		box, err := encryption.Open(t.Context(), path, "test")
		if err != nil {
			t.Fatal(err)
		}
		c.Encryption, endpoint = box, c.Store.Endpoints[0]
	})
	return h, endpoint
}

// engineKinds is one of each kind that the engine reads, with as little in it as a person
// may write.
func engineKinds(name string) []client.Object {
	meta, alone := metav1.ObjectMeta{Namespace: name, Name: "one"}, metav1.ObjectMeta{Name: name}
	return []client.Object{
		&v1alpha1.Application{ObjectMeta: meta},
		&v1alpha1.Dataset{ObjectMeta: meta, Spec: v1alpha1.DatasetSpec{Driver: "postgresql", Members: []v1alpha1.DatasetMember{{Cluster: "north"}}}},
		&v1alpha1.GlobalService{ObjectMeta: meta, Spec: v1alpha1.GlobalServiceSpec{Host: "one.example", Mode: v1alpha1.AllHealthy,
			Endpoints: []v1alpha1.ServiceEndpoint{{Cluster: "north", Address: "10.0.0.1"}}}},
		&v1alpha1.RecoveryPlan{ObjectMeta: alone},
		testRun(name),
		&v1alpha1.Cluster{ObjectMeta: alone, Spec: v1alpha1.ClusterSpec{Region: "north", Center: "north-1"}},
	}
}

// TestStatuses is what holds between the hub's own writes of a status and what everybody
// reads, with everything encrypted in the store.
func TestStatuses(t *testing.T) {
	h, endpoint := startEncryptedHub(t)
	s := &statusesTest{T: t, hub: h, client: h.typed(t, h.server.Loopback())}
	var err error
	if s.store, err = clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, Logger: quietZap()}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.store.Close() }()
	for name, test := range map[string]func(*statusesTest){
		"everybody reads what was written": (*statusesTest).read,
		"an older version is a conflict":   (*statusesTest).conflict,
		"what is gone is not found":        (*statusesTest).gone,
		"every kind with a status":         (*statusesTest).kinds,
		"the audit log says who and what":  (*statusesTest).audited,
	} {
		t.Run(name, func(t *testing.T) {
			one := *s
			one.T = t
			test(&one)
		})
	}
	h.stop()
	if err := h.server.Statuses().Update(context.Background(), testRun("late")); !apierrors.IsServiceUnavailable(err) {
		t.Errorf("a write after the server has stopped: %v", err)
	}
}

// statusesTest is a hub, a client of its API and one of its store.
type statusesTest struct {
	*testing.T
	hub    *hub
	client client.WithWatch
	store  *clientv3.Client
}

func (s *statusesTest) create(run *v1alpha1.RecoveryRun) {
	s.Helper()
	if err := s.client.Create(s.Context(), run); err != nil {
		s.Fatal(err)
	}
}

func (s *statusesTest) read() {
	run := testRun("read")
	s.create(run)
	before := run.DeepCopy()
	follow, err := s.client.Watch(s.Context(), &v1alpha1.RecoveryRunList{}, &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: run.ResourceVersion}})
	if err != nil {
		s.Fatal(err)
	}
	defer follow.Stop()
	run.Spec.Plan, run.Labels = "written by nobody", nil
	run.Status = journal()
	if err := s.hub.server.Statuses().Update(s.Context(), run); err != nil {
		s.Fatal(err)
	}
	want := before.DeepCopy()
	want.Status, want.ResourceVersion = run.Status, run.ResourceVersion
	var got v1alpha1.RecoveryRun
	if err := s.client.Get(s.Context(), client.ObjectKeyFromObject(run), &got); err != nil {
		s.Fatal(err)
	}
	if d := cmp.Diff(want, &got); d != "" || run.ResourceVersion == before.ResourceVersion {
		s.Errorf("read after the write (-want +got):\n%s", d)
	}
	if event := <-follow.ResultChan(); event.Object.(client.Object).GetResourceVersion() != run.ResourceVersion {
		s.Errorf("a watch saw %+v, want version %s", event, run.ResourceVersion)
	}
	kept, err := s.store.Get(s.Context(), "/registry/tripod.dev/recoveryruns/read")
	if err != nil || len(kept.Kvs) != 1 {
		s.Fatalf("the store has %v, %v", kept, err)
	}
	if !bytes.HasPrefix(kept.Kvs[0].Value, []byte("k8s:enc:")) {
		s.Errorf("the store holds %.40q, want it encrypted", kept.Kvs[0].Value)
	}
}

func (s *statusesTest) conflict() {
	run := testRun("conflict")
	s.create(run)
	older := run.DeepCopy()
	run.Status.Message = "first"
	if err := s.hub.server.Statuses().Update(s.Context(), run); err != nil {
		s.Fatal(err)
	}
	older.Status.Message = "second"
	if err := s.hub.server.Statuses().Update(s.Context(), older); !apierrors.IsConflict(err) {
		s.Errorf("a write at version %s: %v, want a conflict", older.ResourceVersion, err)
	}
	older.ResourceVersion = ""
	if err := s.hub.server.Statuses().Update(s.Context(), older); !apierrors.IsBadRequest(err) {
		s.Errorf("a write at no version: %v, want a bad request", err)
	}
	var got v1alpha1.RecoveryRun
	if err := s.client.Get(s.Context(), client.ObjectKeyFromObject(run), &got); err != nil || got.Status.Message != "first" {
		s.Errorf("it says %q, %v", got.Status.Message, err)
	}
}

func (s *statusesTest) gone() {
	run := testRun("gone")
	s.create(run)
	if err := s.client.Delete(s.Context(), run.DeepCopy()); err != nil {
		s.Fatal(err)
	}
	if err := s.hub.server.Statuses().Update(s.Context(), run); !apierrors.IsNotFound(err) {
		s.Errorf("a write of what was deleted: %v", err)
	}
}

// kinds fails when a kind's resource is guessed otherwise than its CRD says.
func (s *statusesTest) kinds() {
	s.hub.namespace(s.T, "kinds")
	for _, obj := range engineKinds("kinds") {
		if err := s.client.Create(s.Context(), obj); err != nil {
			s.Errorf("%T: %v", obj, err)
			continue
		}
		before := obj.GetResourceVersion()
		if err := s.hub.server.Statuses().Update(s.Context(), obj); err != nil || obj.GetResourceVersion() == before {
			s.Errorf("%T at version %s, %s before: %v", obj, obj.GetResourceVersion(), before, err)
		}
	}
}

func (s *statusesTest) audited() {
	run := testRun("audited")
	s.create(run)
	run.Status.Message = "not in the audit log"
	if err := s.hub.server.Statuses().Update(s.Context(), run); err != nil {
		s.Fatal(err)
	}
	eventually(s.T, "the audit log names the write", func(context.Context) string {
		text, err := os.ReadFile(filepath.Join(s.hub.dataDir, "audit", "audit.log"))
		if err != nil {
			return err.Error()
		}
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, `"name":"audited"`) && strings.Contains(line, `"subresource":"status"`) {
				for _, want := range []string{`"username":"system:apiserver"`, `"verb":"update"`, `"requestURI":"/apis/tripod.dev/v1alpha1/recoveryruns/audited/status"`, `"code":200`, `"level":"Metadata"`} {
					if !strings.Contains(line, want) {
						return line + " does not have " + want
					}
				}
				if strings.Contains(line, run.Status.Message) {
					return line + " has the contents"
				}
				return ""
			}
		}
		return "it is not there"
	})
}

// TestARecordGoesBackAsItCame: a member of a newer version may have put more into an
// object than this one knows.
func TestARecordGoesBackAsItCame(t *testing.T) {
	const stored = `{"apiVersion":"tripod.dev/v1alpha1","kind":"RecoveryRun","metadata":{"uid":"u","name":"r"},"newer":[1,{"a":1e400}],"spec":{"z":"&","a":null},"status":{"phase":"Fencing","newer":1}}` + "\n"
	r := &record{}
	if _, _, err := (recordCodec{}).Decode([]byte(stored), nil, r); err != nil {
		t.Fatal(err)
	}
	next := r.DeepCopyObject().(*record)
	next.fields["status"] = []byte(`{"phase":"Promoting"}`)
	var back bytes.Buffer
	if err := (recordCodec{}).Encode(next, &back); err != nil {
		t.Fatal(err)
	}
	want := strings.Replace(stored, `{"phase":"Fencing","newer":1}`, `{"phase":"Promoting"}`, 1)
	if d := cmp.Diff(want, back.String()); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	back.Reset()
	if err := (recordCodec{}).Encode(r, &back); err != nil || back.String() != stored {
		t.Errorf("the one that was copied is %s now, %v", back.String(), err)
	}
	for _, bad := range []string{"null", "[]", `{"metadata":`, ""} {
		if _, _, err := (recordCodec{}).Decode([]byte(bad), nil, &record{}); err == nil {
			t.Errorf("%q was taken for an object", bad)
		}
	}
}
