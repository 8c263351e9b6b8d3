package security

import (
	"context"
	"errors"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// TestRightsThatAreTakenAwayEndOpenStreams: what was allowed when a watch began is
// not allowed for ever. The bound of 5 s is the gateway's own test.
func TestRightsThatAreTakenAwayEndOpenStreams(t *testing.T) {
	h := attacked(t)
	rights := h.kube(t, h.admin).RbacV1()
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "onlooker"}, Rules: []rbacv1.PolicyRule{
		{Verbs: []string{"get", "list", "watch"}, APIGroups: []string{""}, Resources: []string{"configmaps"}},
	}}
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "onlooker"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "onlooker"},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "wei"}},
	}
	if _, err := rights.Roles("default").Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := rights.RoleBindings("default").Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	onlooker := h.kube(t, h.as(t, h.certificate(t, "wei"))).CoreV1().ConfigMaps("default")
	var open watch.Interface
	eventually(t, "the binding lets wei watch", func(ctx context.Context) (err error) {
		open, err = onlooker.Watch(t.Context(), metav1.ListOptions{})
		return err
	})
	defer open.Stop()
	if err := rights.RoleBindings("default").Delete(t.Context(), "onlooker", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the watch has ended with the right to it", func(context.Context) error {
		for {
			select {
			case _, more := <-open.ResultChan():
				if !more {
					return nil
				}
			default:
				return errors.New("open")
			}
		}
	})
	if _, err := onlooker.Watch(t.Context(), metav1.ListOptions{}); err == nil {
		t.Error("wei watches again without a right")
	}
}
