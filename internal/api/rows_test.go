package api

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestRows(t *testing.T) {
	for _, tc := range []struct {
		group, kind, object string
		want                []any
	}{
		{"apps", "Deployment", `{spec: {replicas: 4, selector: {matchLabels: {app: a}}, template: {spec: {containers: [{name: c, image: i}, {name: d, image: j}]}}},
			status: {readyReplicas: 3, updatedReplicas: 2, availableReplicas: 1}}`, []any{"x", "3/4", int64(2), int64(1), "5m", "c,d", "i,j", "app=a"}},
		{"apps", "ReplicaSet", `{spec: {replicas: 4, selector: {matchLabels: {app: a}}, template: {spec: {containers: [{name: c, image: i}]}}},
			status: {replicas: 3, readyReplicas: 2}}`, []any{"x", int64(4), int64(3), int64(2), "5m", "c", "i", "app=a"}},
		{"apps", "ControllerRevision", `{metadata: {name: x, ownerReferences: [{apiVersion: apps/v1, kind: DaemonSet, name: d, uid: u, controller: true}]},
			revision: 3}`, []any{"x", "daemonset.apps/d", int64(3), "5m"}},
		{"", "Node", `{metadata: {name: x, labels: {node-role.kubernetes.io/control-plane: ""}}, spec: {unschedulable: true},
			status: {conditions: [{type: Ready, status: "True"}], addresses: [{type: InternalIP, address: 1.2.3.4}],
			nodeInfo: {kubeletVersion: v1, osImage: Debian, kernelVersion: "6", architecture: amd64, containerRuntimeVersion: carob://1}}}`,
			[]any{"x", "Ready,SchedulingDisabled", "control-plane", "5m", "v1", "1.2.3.4", "<none>", "Debian", "6 (amd64)", "carob://1"}},
		{"", "Node", `{metadata: {name: x}}`,
			[]any{"x", "Unknown", "<none>", "5m", "", "<none>", "<none>", "<unknown>", "<unknown>", "<unknown>"}},
		{"", "Service", `{metadata: {name: x}, spec: {type: NodePort, clusterIPs: [10.43.0.9], selector: {app: a},
			ports: [{port: 80, nodePort: 30080, protocol: TCP}, {port: 53, protocol: UDP}]}}`,
			[]any{"x", "NodePort", "10.43.0.9", "<none>", "80:30080/TCP,53/UDP", "5m", "app=a"}},
		{"", "Service", `{metadata: {name: x}, spec: {type: LoadBalancer}}`, []any{"x", "LoadBalancer", "<none>", "<pending>", "<none>", "5m", "<none>"}},
		{"", "ConfigMap", `{metadata: {name: x}, data: {a: b}, binaryData: {c: aGk=}}`, []any{"x", int64(2), "5m"}},
		{"", "Secret", `{metadata: {name: x}, stringData: {a: b}}`, []any{"x", "Opaque", int64(1), "5m"}},
		{"", "Namespace", `{metadata: {name: x}}`, []any{"x", "Active", "5m"}},
		{"", "ServiceAccount", `{metadata: {name: x}}`, []any{"x", "5m"}},
		{"", "Endpoints", `{metadata: {name: x}, subsets: [{addresses: [{ip: 1.1.1.1}, {ip: 1.1.1.2}], ports: [{port: 1}, {port: 2}]}]}`,
			[]any{"x", "1.1.1.1:1,1.1.1.2:1,1.1.1.1:2 + 1 more...", "5m"}},
		{"", "Endpoints", `{metadata: {name: x}}`, []any{"x", "<none>", "5m"}},
		{"discovery.k8s.io", "EndpointSlice", `{metadata: {name: x}, addressType: IPv4, endpoints: [{addresses: [1.1.1.1]}], ports: [{port: 1}]}`,
			[]any{"x", "IPv4", "1", "1.1.1.1", "5m"}},
		{"discovery.k8s.io", "EndpointSlice", `{metadata: {name: x}, addressType: IPv4}`, []any{"x", "IPv4", "<unset>", "<unset>", "5m"}},
		{"node.k8s.io", "RuntimeClass", `{metadata: {name: x}, handler: runc}`, []any{"x", "runc", "5m"}},
		{"", "PersistentVolume", `{metadata: {name: x}, spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce, ReadOnlyMany], storageClassName: s,
			claimRef: {namespace: ns, name: c}}, status: {phase: Bound, reason: r}}`,
			[]any{"x", "1Gi", "RWO,ROX", "Retain", "Bound", "ns/c", "s", "<unset>", "r", "5m", "Filesystem"}},
		{"", "PersistentVolumeClaim", `{metadata: {name: x}, spec: {storageClassName: s, volumeName: v}, status: {phase: Bound, capacity: {storage: 1Gi},
			accessModes: [ReadWriteOncePod]}}`, []any{"x", "Bound", "v", "1Gi", "RWOP", "s", "<unset>", "5m", "Filesystem"}},
		{"", "PersistentVolumeClaim", `{metadata: {name: x}, spec: {resources: {requests: {storage: 1Gi}}}}`,
			[]any{"x", "Pending", "", "", "", "", "<unset>", "5m", "Filesystem"}},
		{"storage.k8s.io", "StorageClass", `{metadata: {name: x}, provisioner: p}`, []any{"x", "p", "Delete", "Immediate", false, "5m"}},
		{"storage.k8s.io", "CSIDriver", `{metadata: {name: x}, spec: {tokenRequests: [{audience: a}, {audience: b}]}}`,
			[]any{"x", true, false, false, "a,b", false, "Persistent", "5m"}},
		{"storage.k8s.io", "CSINode", `{metadata: {name: x}, spec: {drivers: [{name: a, nodeID: b}]}}`, []any{"x", int64(1), "5m"}},
		{"storage.k8s.io", "CSIStorageCapacity", `{metadata: {name: x}, storageClassName: s, capacity: 1Gi}`, []any{"x", "s", "1Gi"}},
		{"storage.k8s.io", "VolumeAttachment", `{metadata: {name: x}, spec: {attacher: a, nodeName: n1, source: {persistentVolumeName: v}}, status: {attached: true}}`,
			[]any{"x", "a", "v", "n1", true, "5m"}},
		{"storage.k8s.io", "VolumeAttributesClass", `{metadata: {name: x}, driverName: d}`, []any{"x", "d", "5m"}},
		{"resource.k8s.io", "DeviceClass", `{metadata: {name: x}}`, []any{"x", "5m"}},
		{"resource.k8s.io", "ResourceClaim", `{metadata: {name: x}, status: {allocation: {}, reservedFor: [{name: p}]}}`, []any{"x", "allocated,reserved", "5m"}},
		{"resource.k8s.io", "ResourceClaim", `{metadata: {name: x}}`, []any{"x", "pending", "5m"}},
		{"resource.k8s.io", "ResourceSlice", `{metadata: {name: x}, spec: {driver: d, nodeName: n1, pool: {name: p}}}`, []any{"x", "n1", "d", "p", "5m"}},
		{"resource.k8s.io", "DeviceTaintRule", `{metadata: {name: x}, spec: {taint: {key: k, value: v, effect: NoExecute, timeAdded: "1970-01-01T00:00:00Z"}}}`,
			[]any{"x", "k", "v", "NoExecute", "56y", "5m"}},
		{"coordination.k8s.io", "Lease", `{metadata: {name: x}, spec: {holderIdentity: me}}`, []any{"x", "me", "5m"}},
		{"", "Event", `{metadata: {name: x}, involvedObject: {kind: Pod, name: p}, reason: Started, message: " hi\n", type: Normal,
			source: {component: kubelet, host: n1}}`,
			[]any{"<unknown>", "Normal", "Started", "pod/p", "", "kubelet, n1", "hi", "<unknown>", int64(1), "x"}},
	} {
		k := kindOf(t, tc.group, tc.kind)
		obj := object(t, k, tc.object)
		obj.(metav1.Object).SetName("x")
		obj.(metav1.Object).SetCreationTimestamp(metav1.NewTime(time.Now().Add(-5*time.Minute - 200*time.Millisecond)))
		got, err := k.Row(obj)
		if err != nil {
			t.Errorf("%s: %v", tc.kind, err)
			continue
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s: (-want +got):\n%s", tc.kind, diff)
		}
	}
}
