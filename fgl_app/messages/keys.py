"""Names of the records of a message, and of the keys in them."""

ARRAYS, METRICS, CONFIG, SITE = "arrays", "metrics", "config", "site"
EMBEDDINGS, CONTROL = "embeddings", "control"

# In the ConfigRecord of a request
RUN, CODE, CLASS_NAMES, CHANNELS = "run", "code", "class-names", "channels"
EPOCHS, SERVER_ROUND, NUM_ROUNDS, PROXIMAL_MU = "epochs", "server-round", "rounds", "proximal-mu"
ENCODER = "encoder"
CONTROL_ROUND, CONTROL_SITES = "control-round", "control-sites"

# In the MetricRecord of a reply
NUM_EXAMPLES, LABEL_COUNTS, TRAIN_LOSS = "num-examples", "label-counts", "train-loss"
