package volume

// What the provisioner of local volumes and the nodes that make the folders agree on.
const (
	// LocalPathClass is the name of the storage class that every cluster gets, and LocalPathProvisioner of who makes its volumes.
	LocalPathClass       = "local-path"
	LocalPathProvisioner = "carob.dev/local-path"
	// LocalPathFolder is the annotation of a Node that says below which folder its volumes are; a volume's own has the volume's name.
	LocalPathFolder = "carob.dev/local-path-folder"
	// LocalPathNode is the annotation of a volume that says whose folder it is.
	LocalPathNode = "carob.dev/local-path-node"
	// LocalPathFinalizer keeps a volume until its node has removed the folder.
	LocalPathFinalizer = "carob.dev/local-path"
)
