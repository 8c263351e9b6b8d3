package drill

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const (
	podName       = "drill"
	runAnnotation = "tripod.dev/run"
	programs      = "/tripod"
	// longest is after how many seconds a pod is ended that nobody asks for.
	longest = int64(15 * 60)
)

func namespaceOf(o Order) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: o.Place(),
		Labels: map[string]string{"app.kubernetes.io/managed-by": "tripod-agent", "tripod.dev/drill": "true"},
		Annotations: map[string]string{runAnnotation: o.Run, "tripod.dev/dataset": o.Namespace + "/" + o.Dataset,
			"tripod.dev/incarnation": strconv.FormatUint(o.Incarnation, 10)}}}
}

// policyOf lets nobody in, and out to the standby alone.
func policyOf(o Order, host, port string) (*networkingv1.NetworkPolicy, error) {
	n, err := strconv.ParseInt(port, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("port %q of the standby: %w", port, err)
	}
	bits := "/32"
	if slices.Contains([]byte(host), ':') {
		bits = "/128"
	}
	to, protocol := intstr.FromInt32(int32(n)), corev1.ProtocolTCP
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: podName, Namespace: o.Place()},
		Spec: networkingv1.NetworkPolicySpec{
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
			Egress: []networkingv1.NetworkPolicyEgressRule{{
				To:    []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: host + bits}}},
				Ports: []networkingv1.NetworkPolicyPort{{Protocol: &protocol, Port: &to}},
			}},
		},
	}, nil
}

// secretOf holds what a base copy needs and no more.
func secretOf(o Order, from *corev1.Secret) *corev1.Secret {
	data := map[string][]byte{}
	for _, name := range []string{"database", "replication-password"} {
		data[name] = from.Data[name]
	}
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: podName, Namespace: o.Place()}, Data: data}
}

// podOf takes images, rights and requests from the pods that run the standby.
func podOf(o Order, set *appsv1.StatefulSet) (*corev1.Pod, error) {
	template := set.Spec.Template.Spec
	if len(template.InitContainers) == 0 || len(template.Containers) == 0 {
		return nil, fmt.Errorf("StatefulSet %s/%s: expected an init container that installs tripod-guard and the database's container, as in deploy/ledger", set.Namespace, set.Name)
	}
	guard, database := template.InitContainers[0], template.Containers[0]
	mounts := func(readOnly bool) []corev1.VolumeMount {
		return []corev1.VolumeMount{{Name: "tripod", MountPath: programs, ReadOnly: readOnly}}
	}
	no, mode, end := false, int32(0o400), longest
	empty := corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: podName, Namespace: o.Place(), Labels: map[string]string{"tripod.dev/drill": "true"}},
		Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever, ActiveDeadlineSeconds: &end, AutomountServiceAccountToken: &no, EnableServiceLinks: &no,
			ImagePullSecrets: nil, NodeSelector: template.NodeSelector, Tolerations: template.Tolerations,
			InitContainers: []corev1.Container{{Name: "guard", Image: guard.Image, ImagePullPolicy: guard.ImagePullPolicy,
				Command: []string{"/tripod-guard", "install", programs + "/tripod-guard"}, SecurityContext: guard.SecurityContext, VolumeMounts: mounts(false)}},
			Containers: []corev1.Container{{Name: podName, Image: database.Image, ImagePullPolicy: database.ImagePullPolicy,
				Command:         []string{programs + "/tripod-guard", "drill", "--source=" + o.Source, "--volume=/var/lib/tripod-drill", "--secrets=/etc/tripod-db"},
				Args:            optionsOf(o),
				SecurityContext: database.SecurityContext, Resources: database.Resources,
				VolumeMounts: append(mounts(true), corev1.VolumeMount{Name: "copy", MountPath: "/var/lib/tripod-drill"},
					corev1.VolumeMount{Name: "credentials", MountPath: "/etc/tripod-db", ReadOnly: true})}},
			Volumes: []corev1.Volume{{Name: "tripod", VolumeSource: empty}, {Name: "copy", VolumeSource: empty},
				{Name: "credentials", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: podName, DefaultMode: &mode}}}},
		},
	}, nil
}

func optionsOf(o Order) []string {
	var args []string
	for _, name := range slices.Sorted(maps.Keys(o.Options)) {
		args = append(args, "--option="+name+"="+o.Options[name])
	}
	return args
}
