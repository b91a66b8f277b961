package api

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

const (
	storageGroup = "storage.k8s.io"
	deviceGroup  = "resource.k8s.io"

	volumeYAML = `metadata: {name: v}
spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], hostPath: {path: /d}}`
	claimYAML = `metadata: {name: c, namespace: ns}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}`
)

func TestCreateOfStorage(t *testing.T) {
	for _, tc := range []struct {
		name, group, kind, object string
		want                      []string
	}{
		{"class", storageGroup, "StorageClass", `{metadata: {name: c}, provisioner: a.b/c, parameters: {k: v},
			allowedTopologies: [{matchLabelExpressions: [{key: zone, values: [a, b]}]}]}`, nil},
		{"class of nobody", storageGroup, "StorageClass", `{metadata: {name: c}, reclaimPolicy: Recycle, volumeBindingMode: Never}`, []string{
			"provisioner: Required value", `reclaimPolicy: Unsupported value: "Recycle": supported values: "Delete", "Retain"`,
			`volumeBindingMode: Unsupported value: "Never": supported values: "Immediate", "WaitForFirstConsumer"`,
		}},
		{"class with the same place twice", storageGroup, "StorageClass", `{metadata: {name: c}, provisioner: "a b", allowedTopologies:
			[{matchLabelExpressions: [{key: z, values: [a, b]}]}, {matchLabelExpressions: [{key: z, values: [b, a]}]}, {matchLabelExpressions: [{key: y}]}]}`,
			[]string{
				"allowedTopologies[1].matchLabelExpressions: Duplicate value: \"\"", "allowedTopologies[2].matchLabelExpressions[0].values: Required value",
				`provisioner: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an ` +
					`alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')`,
			}},
		{"driver", storageGroup, "CSIDriver", `{metadata: {name: d.io}, spec: {fsGroupPolicy: File, tokenRequests: [{audience: a, expirationSeconds: 600}]}}`, nil},
		{"driver of wrong values", storageGroup, "CSIDriver", `{metadata: {name: d.io}, spec: {fsGroupPolicy: Some, volumeLifecycleModes: [Once],
			nodeAllocatableUpdatePeriodSeconds: 9, serviceAccountTokenInSecrets: true}}`, []string{
			`spec.fsGroupPolicy: Unsupported value: "Some": supported values: "File", "None", "ReadWriteOnceWithFSType"`,
			"spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 9: must be greater than or equal to 10 seconds",
			"spec.serviceAccountTokenInSecrets: Invalid value: true: serviceAccountTokenInSecrets is set but no tokenRequests are specified",
			`spec.volumeLifecycleModes: Unsupported value: "Once": supported values: "Persistent", "Ephemeral"`,
		}},
		{"tokens", storageGroup, "CSIDriver", `{metadata: {name: d.io}, spec: {tokenRequests: [{audience: a}, {audience: a}, {audience: b, expirationSeconds: 1}]}}`,
			[]string{
				`spec.tokenRequests[1].audience: Duplicate value: "a"`,
				"spec.tokenRequests[2].expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes",
			}},
		{"node", storageGroup, "CSINode", `{metadata: {name: n}, spec: {drivers: [{name: d.io, nodeID: n, topologyKeys: [a/b], allocatable: {count: 3}}]}}`, nil},
		{"node without ids", storageGroup, "CSINode", `{metadata: {name: n}, spec: {drivers: [{name: d.io, nodeID: "", topologyKeys: [k, k]},
			{name: d.io, nodeID: n, allocatable: {count: -1}}]}}`, []string{
			`spec.drivers[0].nodeID: Required value`, `spec.drivers[0]: Duplicate value: "k"`,
			"spec.drivers[1].allocatable.count: Invalid value: -1: must be greater than or equal to 0", `spec.drivers[1].name: Duplicate value: "d.io"`,
		}},
		{"capacity", storageGroup, "CSIStorageCapacity", `{metadata: {name: c, namespace: ns}, storageClassName: s, capacity: 1Gi, nodeTopology: {}}`, nil},
		{"less than nothing", storageGroup, "CSIStorageCapacity", `{metadata: {name: c, namespace: ns}, storageClassName: "", capacity: -1}`, []string{
			`capacity: Invalid value: "-1": must be greater than or equal to 0`,
			`storageClassName: Invalid value: "": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and ` +
				`end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`,
		}},
		{"attachment", storageGroup, "VolumeAttachment", `{metadata: {name: a}, spec: {attacher: d.io, nodeName: n1, source: {persistentVolumeName: v}}}`, nil},
		{"attachment of two", storageGroup, "VolumeAttachment", `{metadata: {name: a}, spec: {attacher: d.io, nodeName: n1, source: {persistentVolumeName: v,
			inlineVolumeSpec: {}}}}`, []string{"spec.source: Forbidden: must specify exactly one of inlineVolumeSpec and persistentVolumeName"}},
		{"attachment of nothing", storageGroup, "VolumeAttachment", `{metadata: {name: a}, spec: {attacher: "", nodeName: n1, source: {}}}`,
			[]string{"spec.attacher: Required value", "spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName"}},
		{"inline volume", storageGroup, "VolumeAttachment", `{metadata: {name: a}, spec: {attacher: d.io, nodeName: n1, source: {inlineVolumeSpec:
			{capacity: {storage: 1}, accessModes: [ReadWriteOnce], hostPath: {path: /x}, persistentVolumeReclaimPolicy: Delete}}}}`, []string{
			"spec.source.inlineVolumeSpec.capacity: Forbidden: may not be specified in the context of inline volumes",
			"spec.source.inlineVolumeSpec.csi: Required value: has to be specified in the context of inline volumes",
			"spec.source.inlineVolumeSpec.persistentVolumeReclaimPolicy: Forbidden: may only be Retain in the context of inline volumes",
		}},
		{"attributes", storageGroup, "VolumeAttributesClass", `{metadata: {name: a}, driverName: d.io, parameters: {iops: "1"}}`, nil},
		{"no attributes", storageGroup, "VolumeAttributesClass", `{metadata: {name: a}}`,
			[]string{"driverName: Required value", "parameters: Required value: must contain at least one key/value pair"}},

		{"volume", "", "PersistentVolume", volumeYAML, nil},
		{"volume of nothing", "", "PersistentVolume", `{metadata: {name: v}}`, []string{
			"spec.accessModes: Required value", "spec.capacity: Required value", `spec.capacity: Unsupported value: null: supported values: "storage"`,
			"spec: Required value: must specify a volume type",
		}},
		{"volume of two sources", "", "PersistentVolume", `{metadata: {name: v}, spec: {capacity: {storage: 0}, accessModes: [ReadWriteOncePod, ReadWriteOnce, Any],
			hostPath: {path: /a/../b}, nfs: {server: s, path: p}}}`, []string{
			"spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
			`spec.accessModes: Unsupported value: "Any": supported values: "ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"`,
			`spec.capacity[storage]: Invalid value: "0": must be greater than zero`, `spec.hostPath.path: Invalid value: "/a/../b": must not contain '..'`,
			"spec.nfs: Forbidden: may not specify more than 1 volume type",
		}},
		{"local volume of all nodes", "", "PersistentVolume", `{metadata: {name: v}, spec: {capacity: {storage: 1}, accessModes: [ReadWriteOnce], local: {path: /x}}}`,
			[]string{"spec.nodeAffinity: Required value: Local volume requires node affinity"}},
		{"local volume of no node", "", "PersistentVolume", `{metadata: {name: v}, spec: {capacity: {storage: 1}, accessModes: [ReadWriteOnce], local: {path: /x},
			nodeAffinity: {required: {nodeSelectorTerms: []}}}}`,
			[]string{"spec.nodeAffinity.required.nodeSelectorTerms: Required value: must have at least one node selector term"}},
		{"root that is to be wiped", "", "PersistentVolume", `{metadata: {name: v}, spec: {capacity: {storage: 1}, accessModes: [ReadWriteOnce], hostPath: {path: //},
			persistentVolumeReclaimPolicy: Recycle}}`,
			[]string{"spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'"}},
		{"attributes without a driver", "", "PersistentVolume", `{metadata: {name: v}, spec: {capacity: {storage: 1}, accessModes: [ReadWriteOnce], hostPath: {path: /d},
			volumeAttributesClassName: a, volumeMode: Tape}}`, []string{
			"spec.csi: Required value: has to be specified when using volumeAttributesClassName",
			`spec.volumeMode: Unsupported value: "Tape": supported values: "Block", "Filesystem"`,
		}},
		{"driver's volume", "", "PersistentVolume", `{metadata: {name: v, annotations: {volume.beta.kubernetes.io/mount-options: ro}}, spec: {capacity: {storage: 1},
			accessModes: [ReadWriteOnce], csi: {driver: d.io, volumeHandle: "", nodeExpandSecretRef: {name: s}}}}`, []string{
			"metadata.annotations.volume.beta.kubernetes.io/mount-options: Forbidden: may not specify mount options for this volume type",
			"spec.csi.nodeExpandSecretRef.namespace: Required value", "spec.csi.volumeHandle: Required value",
		}},
		{"initiator", "", "PersistentVolume", `{metadata: {name: v}, spec: {capacity: {storage: 1}, accessModes: [ReadWriteOnce], iscsi: {targetPortal: p, iqn: iqn.x,
			lun: 256, initiatorName: me}}}`, []string{
			`spec.iscsi.initiatorname: Invalid value: "me": must be valid format starting with iqn, eui, or naa`,
			`spec.iscsi.iqn: Invalid value: "iqn.x": must be valid format`, "spec.iscsi.lun: Invalid value: 256: must be between 0 and 255, inclusive",
		}},

		{"claim", "", "PersistentVolumeClaim", claimYAML, nil},
		{"claim for nothing", "", "PersistentVolumeClaim", `{metadata: {name: c, namespace: ns}, spec: {storageClassName: "A b"}}`, []string{
			"spec.accessModes: Required value: at least 1 access mode is required", "spec.resources[storage]: Required value",
			`spec.storageClassName: Invalid value: "A b": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start ` +
				`and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`,
		}},
		{"claim for less than nothing", "", "PersistentVolumeClaim", `{metadata: {name: c, namespace: ns}, spec: {accessModes: [ReadWriteOnce],
			resources: {requests: {storage: -1Gi}}, dataSource: {kind: Pod, name: p}, dataSourceRef: {kind: Pod, name: q}}}`, []string{
			`spec.dataSource: Invalid value: "Pod": must be 'PersistentVolumeClaim' when referencing the default apiGroup`,
			`spec.dataSourceRef: Invalid value: "Pod": must be 'PersistentVolumeClaim' when referencing the default apiGroup`,
			`spec.resources[storage]: Invalid value: "-1Gi": must be greater than zero`, "spec: Invalid value: {}: must match dataSourceRef",
		}},

		{"class of devices", deviceGroup, "DeviceClass", `{metadata: {name: c}, spec: {selectors: [{cel: {expression: device.driver == "d.io"}}],
			config: [{opaque: {driver: d.io, parameters: {a: b}}}], extendedResourceName: a.b/c}}`, nil},
		{"class that selects nothing", deviceGroup, "DeviceClass", `{metadata: {name: c}, spec: {selectors: [{cel: {expression: "1"}}, {}], config: [{}],
			extendedResourceName: cpu}}`, []string{
			"spec.config[0].opaque: Required value", `spec.extendedResourceName: Invalid value: "cpu": must be a valid extended resource name`,
			`spec.selectors[0].cel.expression: Invalid value: "1": must evaluate to bool or the unknown type, not int`, "spec.selectors[1].cel: Required value",
		}},
		{"request", deviceGroup, "ResourceClaim", `{metadata: {name: c, namespace: ns}, spec: {devices: {requests: [{name: r, exactly: {deviceClassName: c}}],
			constraints: [{requests: [r], matchAttribute: d.io/a}]}}}`, nil},
		{"requests of all kinds", deviceGroup, "ResourceClaim", `{metadata: {name: c, namespace: ns}, spec: {devices: {requests: [{name: r}, {name: r, exactly:
			{deviceClassName: "", allocationMode: All, count: 1}}, {name: s, exactly: {deviceClassName: c, allocationMode: Some,
			tolerations: [{operator: Exists, value: v}]}}], constraints: [{requests: [x], matchAttribute: a}], config: [{requests: [r/x]}]}}}`, []string{
			"spec.devices.config[0].opaque: Required value",
			`spec.devices.config[0].requests[0]: Invalid value: "r/x": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'`,
			`spec.devices.constraints[0].matchAttribute: Invalid value: "a": a fully qualified name must be a domain and a name separated by a slash`,
			`spec.devices.constraints[0].requests[0]: Invalid value: "x": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'`,
			"spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required",
			"spec.devices.requests[1].exactly.count: Invalid value: 1: must not be specified when allocationMode is 'All'",
			"spec.devices.requests[1].exactly.deviceClassName: Required value", `spec.devices.requests[1]: Duplicate value: "r"`,
			`spec.devices.requests[2].exactly.allocationMode: Unsupported value: "Some": supported values: "All", "ExactCount"`,
			"spec.devices.requests[2].exactly.tolerations[0].value: Invalid value: \"v\": must be empty for operator `Exists`",
		}},
		{"template with a name", deviceGroup, "ResourceClaimTemplate", `{metadata: {name: c, namespace: ns}, spec: {metadata: {name: x}, spec: {}}}`,
			[]string{"spec.metadata.name: Forbidden: cannot be set"}},
		{"slice", deviceGroup, "ResourceSlice", `{metadata: {name: s}, spec: {driver: d.io, nodeName: n1, pool: {name: n, resourceSliceCount: 1},
			devices: [{name: d0, attributes: {model: {string: x}, d.io/rev: {version: 1.0.0}}, capacity: {memory: {value: 1Gi}}}]}}`, nil},
		{"slice of nowhere", deviceGroup, "ResourceSlice", `{metadata: {name: s}, spec: {driver: d.io, pool: {name: "", resourceSliceCount: 0}, allNodes: false,
			devices: [{name: d0, attributes: {9x: {}, v: {version: "1"}}, nodeName: n1}, {name: d0}]}}`, []string{
			"spec.allNodes: Invalid value: false: must be either unset or set to true",
			`spec.devices[0].attributes: Invalid value: "9x": a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric ` +
				`characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')`,
			`spec.devices[0].attributes[9x]: Invalid value: "": exactly one value must be specified`,
			`spec.devices[0].attributes[v].version: Invalid value: "1": must be a string compatible with semver.org spec 2.0.0`,
			"spec.devices[0]: Invalid value: null: `nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec",
			`spec.devices[1]: Duplicate value: "d0"`, "spec.pool.name: Required value", "spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero",
			"spec: Required value: exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required",
		}},
		{"portions", deviceGroup, "ResourceSlice", `{metadata: {name: s}, spec: {driver: d.io, nodeName: n1, pool: {name: n, resourceSliceCount: 1}, devices: [
			{name: a, allowMultipleAllocations: true, capacity: {m: {value: 10, requestPolicy: {default: 5, validRange: {min: 2, max: 11, step: 2}}}}},
			{name: b, capacity: {m: {value: 10, requestPolicy: {default: 5}}}},
			{name: c, allowMultipleAllocations: true, capacity: {m: {value: 10, requestPolicy: {default: 3, validValues: [2, 1, 11]}}}}]}}`, []string{
			`spec.devices[0].capacity[m].requestPolicy.validRange.max: Invalid value: "11": max is larger than capacity value: 10`,
			`spec.devices[0].capacity[m].requestPolicy.validRange.step: Invalid value: "11": value is not a multiple of a given step (2) from (2)`,
			`spec.devices[0].capacity[m].requestPolicy.validRange.step: Invalid value: "5": value is not a multiple of a given step (2) from (2)`,
			"spec.devices[1].capacity[m].requestPolicy: Forbidden: allowMultipleAllocations must be true",
			`spec.devices[2].capacity[m].requestPolicy.validValues: Invalid value: "3": default value is not valid according to the requestPolicy`,
			`spec.devices[2].capacity[m].requestPolicy.validValues[1]: Invalid value: "1": values must be sorted in ascending order`,
			`spec.devices[2].capacity[m].requestPolicy.validValues[2]: Invalid value: "11": option is larger than capacity value: 10`,
		}},
		{"taint of devices", deviceGroup, "DeviceTaintRule", `{metadata: {name: t}, spec: {deviceSelector: {device: D}, taint: {key: k, effect: Now}}}`, []string{
			`spec.deviceSelector.device: Invalid value: "D": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end ` +
				`with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')`,
			`spec.taint.effect: Unsupported value: "Now": supported values: "NoExecute", "NoSchedule", "None"`,
		}},
	} {
		t.Run(tc.kind+"/"+tc.name, func(t *testing.T) { checkCreate(t, tc.group, tc.kind, tc.object, tc.want) })
	}
}

func TestUpdateOfStorage(t *testing.T) {
	bound := func(text string) string { return text + "\nstatus: {phase: Bound, capacity: {storage: 1Gi}}" }
	for _, tc := range []struct {
		name, group, kind, old, object string
		want                           []string
		generation                     int64 // of the old one: 1
	}{
		{"class", storageGroup, "StorageClass", `{metadata: {name: c}, provisioner: a, parameters: {a: b}}`,
			`{metadata: {name: c, labels: {a: b}}, provisioner: a, parameters: {a: b}, allowVolumeExpansion: true}`, nil, 1},
		{"all of a class", storageGroup, "StorageClass", `{metadata: {name: c}, provisioner: a}`,
			`{metadata: {name: c}, provisioner: b, parameters: {a: b}, reclaimPolicy: Retain, volumeBindingMode: WaitForFirstConsumer}`, []string{
				`parameters: Invalid value: {"a":"b"}: field is immutable`, `provisioner: Invalid value: "b": field is immutable`,
				`reclaimPolicy: Invalid value: "Retain": field is immutable`, `volumeBindingMode: Invalid value: "WaitForFirstConsumer": field is immutable`,
			}, 1},
		{"driver", storageGroup, "CSIDriver", `{metadata: {name: d}}`, `{metadata: {name: d}, spec: {attachRequired: false, requiresRepublish: true}}`,
			[]string{"spec.attachedRequired: Invalid value: false: field is immutable"}, 2},
		{"attachment", storageGroup, "VolumeAttachment", `{metadata: {name: a}, spec: {attacher: d.io, nodeName: n1, source: {persistentVolumeName: v}}}`,
			`{metadata: {name: a}, spec: {attacher: d.io, nodeName: m1, source: {persistentVolumeName: v}}}`, []string{
				`spec: Invalid value: {"attacher":"d.io","source":{"persistentVolumeName":"v"},"nodeName":"m1"}: field is immutable`,
			}, 1},
		{"capacity", storageGroup, "CSIStorageCapacity", `{metadata: {name: c, namespace: ns}, storageClassName: s, capacity: 1}`,
			`{metadata: {name: c, namespace: ns}, storageClassName: t, capacity: 2}`, []string{`storageClassName: Invalid value: "t": field is immutable`}, 1},
		{"attributes", storageGroup, "VolumeAttributesClass", `{metadata: {name: a}, driverName: d.io, parameters: {iops: "1"}}`,
			`{metadata: {name: a}, driverName: e.io, parameters: {iops: "2"}}`, []string{
				"driverName: Forbidden: updates to driverName are forbidden.", "parameters: Forbidden: updates to parameters are forbidden.",
			}, 1},
		{"size of a volume", "", "PersistentVolume", volumeYAML, `{metadata: {name: v}, spec: {capacity: {storage: 2Gi}, accessModes: [ReadWriteOnce], hostPath: {path: /d},
			claimRef: {name: x, namespace: ns}, persistentVolumeReclaimPolicy: Delete}}`, nil, 1},
		{"mode of a volume", "", "PersistentVolume", volumeYAML, `{metadata: {name: v}, spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], hostPath: {path: /d},
			volumeMode: Block}}`, []string{`volumeMode: Invalid value: "Block": field is immutable`}, 1},
		{"beta labels", "", "PersistentVolume", `{metadata: {name: v}, spec: {capacity: {storage: 1}, accessModes: [ReadWriteOnce], local: {path: /d}, nodeAffinity:
			{required: {nodeSelectorTerms: [{matchExpressions: [{key: failure-domain.beta.kubernetes.io/zone, operator: In, values: [a]}]}]}}}}`,
			`{metadata: {name: v}, spec: {capacity: {storage: 1}, accessModes: [ReadWriteOnce], local: {path: /d}, nodeAffinity:
			{required: {nodeSelectorTerms: [{matchExpressions: [{key: topology.kubernetes.io/zone, operator: In, values: [a]}]}]}}}}`, nil, 1},
		{"volume of a claim", "", "PersistentVolumeClaim", claimYAML,
			`{metadata: {name: c, namespace: ns}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}, volumeName: v, storageClassName: s}}`, nil, 1},
		{"bound claim that grows", "", "PersistentVolumeClaim", bound(claimYAML),
			`{metadata: {name: c, namespace: ns}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 2Gi}}, volumeAttributesClassName: a}}`, nil, 1},
		{"bound claim that shrinks", "", "PersistentVolumeClaim", bound(claimYAML),
			`{metadata: {name: c, namespace: ns}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}}`,
			[]string{"spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"}, 1},
		{"spec of a claim for devices", deviceGroup, "ResourceClaim", `{metadata: {name: c, namespace: ns}, spec: {devices: {requests: [{name: r, exactly: {deviceClassName: c}}]}}}`,
			`{metadata: {name: c, namespace: ns}, spec: {}}`, []string{`spec: Invalid value: {"devices":{"requests":null}}: field is immutable`}, 1},
		{"pool of a slice", deviceGroup, "ResourceSlice", `{metadata: {name: s}, spec: {driver: d.io, nodeName: n1, pool: {name: n, resourceSliceCount: 1}}}`,
			`{metadata: {name: s}, spec: {driver: d.io, nodeName: n1, pool: {name: m, resourceSliceCount: 1}}}`, []string{`spec.pool.name: Invalid value: "m": field is immutable`}, 2},
		{"effect of a taint", deviceGroup, "DeviceTaintRule", `{metadata: {name: t}, spec: {taint: {key: k, effect: NoSchedule}}}`,
			`{metadata: {name: t}, spec: {taint: {key: k, effect: NoExecute}}}`, nil, 2},
	} {
		t.Run(tc.kind+"/"+tc.name, func(t *testing.T) { checkUpdated(t, tc.group, tc.kind, tc.old, tc.object, tc.want, tc.generation) })
	}
}

func TestSpecOfBoundClaimIsImmutable(t *testing.T) {
	k := kindOf(t, "", "PersistentVolumeClaim")
	for name, object2 := range map[string]string{
		"modes":  `{metadata: {name: c, namespace: ns}, spec: {accessModes: [ReadOnlyMany], resources: {requests: {storage: 1Gi}}}, status: {phase: Bound}}`,
		"size":   `{metadata: {name: c, namespace: ns}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 2Gi}}}}`,
		"volume": `{metadata: {name: c, namespace: ns}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}, volumeName: w}, status: {phase: Bound}}`,
	} {
		old, now := object(t, k, claimYAML), object(t, k, object2)
		if name == "volume" {
			old = object(t, k, `{metadata: {name: c, namespace: ns}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}, volumeName: v}}`)
		}
		errs := k.ValidateUpdate(context.Background(), now, old)
		found := false
		for _, e := range errs {
			found = found || e.Field == "spec" && e.Type == "FieldValueForbidden"
		}
		if !found {
			t.Errorf("%s: %v", name, errs)
		}
	}
}

func TestStatusOfStorage(t *testing.T) {
	for _, tc := range []struct {
		name, group, kind, old, object string
		want                           []string
	}{
		{"claim", "", "PersistentVolumeClaim", claimYAML, claimYAML + "\nstatus: {phase: Bound, capacity: {storage: 1Gi}, allocatedResourceStatuses: {storage: NodeResizePending}}", nil},
		{"claim of odd states", "", "PersistentVolumeClaim", claimYAML, claimYAML +
			"\nstatus: {capacity: {storage: -1}, allocatedResourceStatuses: {storage: Odd}, allocatedResources: {cpu: 1}}", []string{
			"status.allocatedResourceStatuses: Unsupported value: \"storage\": supported values: \"ControllerResizeInProgress\", \"ControllerResizeInfeasible\", " +
				"\"NodeResizePending\", \"NodeResizeInProgress\", \"NodeResizeInfeasible\"",
			"status.allocatedResources: Unsupported value: \"cpu\": supported values: \"storage\"",
			"status.capacity[storage]: Invalid value: -1: must be a valid resource quantity",
		}},
		{"attachment", storageGroup, "VolumeAttachment", `{metadata: {name: a}, spec: {attacher: d.io, nodeName: n1, source: {persistentVolumeName: v}}}`,
			`{metadata: {name: a}, spec: {}, status: {attached: true, attachError: {errorCode: -1}}}`,
			[]string{"status.attachError.errorCode: Invalid value: -1: must be between 0 and 2147483647, inclusive"}},
		{"reserved before it is allocated", deviceGroup, "ResourceClaim", `{metadata: {name: c, namespace: ns}, spec: {}}`,
			`{metadata: {name: c, namespace: ns}, spec: {}, status: {reservedFor: [{resource: pods, name: p, uid: u}]}}`,
			[]string{"status.reservedFor: Forbidden: may not be specified when `allocated` is not set"}},
		{"another device", deviceGroup, "ResourceClaim", `{metadata: {name: c, namespace: ns}, spec: {devices: {requests: [{name: r, exactly: {deviceClassName: c}}]}}}`,
			`{metadata: {name: c, namespace: ns}, spec: {}, status: {allocation: {devices: {results: [{request: r, driver: d.io, pool: p, device: d}]}},
			devices: [{driver: d.io, pool: p, device: e}]}}`, []string{`status.devices[0]: Invalid value: "d.io/p/e": must be an allocated device in the claim`}},
	} {
		k := kindOf(t, tc.group, tc.kind)
		old, obj := object(t, k, tc.old), object(t, k, tc.object)
		version(old, obj)
		k.Status.PrepareForUpdate(context.Background(), obj, old)
		if tc.want == nil {
			tc.want = []string{}
		}
		if diff := cmp.Diff(tc.want, messages(k.Status.ValidateUpdate(context.Background(), obj, old))); diff != "" {
			t.Errorf("%s %s: (-want +got):\n%s", tc.kind, tc.name, diff)
		}
	}
}

// TestDefaultsOfStorage compares whole objects after defaults and after what a create drops.
func TestDefaultsOfStorage(t *testing.T) {
	for _, tc := range []struct{ name, group, kind, object, want string }{
		{"class", storageGroup, "StorageClass", `{metadata: {name: c}, provisioner: p}`,
			`{metadata: {name: c}, provisioner: p, reclaimPolicy: Delete, volumeBindingMode: Immediate}`},
		{"driver", storageGroup, "CSIDriver", `{metadata: {name: c}}`, `{metadata: {name: c}, spec: {attachRequired: true, podInfoOnMount: false, storageCapacity: false,
			requiresRepublish: false, seLinuxMount: false, preventPodSchedulingIfMissing: false, fsGroupPolicy: ReadWriteOnceWithFSType, volumeLifecycleModes: [Persistent]}}`},
		{"claim", "", "PersistentVolumeClaim", claimYAML + "\nstatus: {phase: Bound}", claimYAML[:len(claimYAML)-1] + ", volumeMode: Filesystem}\nstatus: {phase: Pending}"},
		{"source", "", "PersistentVolumeClaim", `{metadata: {name: c}, spec: {dataSource: {kind: PersistentVolumeClaim, name: d}}}`,
			`{metadata: {name: c}, spec: {volumeMode: Filesystem, dataSource: {kind: PersistentVolumeClaim, name: d}, dataSourceRef: {kind: PersistentVolumeClaim, name: d}},
			status: {phase: Pending}}`},
		{"source of another kind", "", "PersistentVolumeClaim", `{metadata: {name: c}, spec: {dataSource: {kind: Pod, name: d}}}`,
			`{metadata: {name: c}, spec: {volumeMode: Filesystem}, status: {phase: Pending}}`},
		{"request", deviceGroup, "ResourceClaim", `{metadata: {name: c}, spec: {devices: {requests: [{name: r, exactly: {deviceClassName: c}}]}}, status: {reservedFor: [{name: x}]}}`,
			`{metadata: {name: c}, spec: {devices: {requests: [{name: r, exactly: {deviceClassName: c, allocationMode: ExactCount, count: 1}}]}}}`},
	} {
		k := kindOf(t, tc.group, tc.kind)
		got, want := object(t, k, tc.object), k.New()
		if k.PrepareForCreate != nil {
			k.PrepareForCreate(context.Background(), got)
		}
		if err := yaml.UnmarshalStrict([]byte(tc.want), want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s %s: (-want +got):\n%s", tc.kind, tc.name, diff)
		}
	}
}

func TestDefaultClassInLists(t *testing.T) {
	k := kindOf(t, storageGroup, "StorageClass")
	mark := func(text string) runtime.Object { return object(t, k, text) }
	objs := []runtime.Object{
		mark(`{metadata: {name: a, creationTimestamp: "2026-01-01T00:00:00Z", annotations: {storageclass.kubernetes.io/is-default-class: "true"}}}`),
		mark(`{metadata: {name: b, creationTimestamp: "2026-01-02T00:00:00Z", annotations: {storageclass.kubernetes.io/is-default-class: "true"}}}`),
		mark(`{metadata: {name: c, creationTimestamp: "2026-01-03T00:00:00Z", annotations: {storageclass.kubernetes.io/is-default-class: "false"}}}`),
	}
	rows := [][]any{{"a"}, {"b"}, {"c"}}
	k.Mark(objs, rows)
	if diff := cmp.Diff([][]any{{"a"}, {"b (default)"}, {"c"}}, rows); diff != "" {
		t.Error(diff)
	}
}
