// Package image keeps container images on the node: it pulls, imports, lists, resolves, removes and exports them.
//
// It implements ImageManagerService of k8s.io/cri-api, and gives the container code what that interface cannot: the
// folders of an image's layers, ready to be the lower folders of an overlay mount.
//
// On disk, under Config.Dir:
//
//	state.json            what the store holds (version, images, layers, blobs); replaced atomically
//	blobs/sha256/<hex>    manifests, configs and layers, as the registry served them
//	layers/<n>/           one unpacked layer, whiteouts in overlay's form; n is short, for mount options have 4096 bytes
//	empty/                stands for the layers of an image that has none
//	partial/<alg>-<hex>   downloads under way, or ended early: the next pull goes on from there, for a day
//	tmp/                  all else that is unfinished
//	trash/                all that is being deleted
//
// Invariants:
//   - A file gets its name under blobs/ or layers/ by rename, when it is whole and its digest was checked.
//   - state.json names a blob or layer only after it is on disk (syncfs); what it does not name is a leftover and goes
//     at Open. So a crash at any moment leaves the images there were, or one more.
//   - A layer's folder never changes once it has its name.
//   - Nothing is deleted while a pull or import runs: each may count on what it has found.
//
// It may import config, failpoint, health and sys of this project.
package image
