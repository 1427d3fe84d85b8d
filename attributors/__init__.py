"""Attribution methods, one file each; this table is how they are known, and imports none of them."""

ATTRIBUTORS: dict[str, str] = {
    "random": "attriboard.attributors.random:Random",
    "input_similarity": "attriboard.attributors.input_similarity:InputSimilarity",
    "embedding_similarity": "attriboard.attributors.embedding_similarity:EmbeddingSimilarity",
    "activation_similarity": "attriboard.attributors.activation_similarity:ActivationSimilarity",
    "bm25": "attriboard.attributors.bm25:BM25",
    "loss_change": "attriboard.attributors.loss_change:LossChange",
    "grad_dot": "attriboard.attributors.grad_dot:GradDot",
    "grad_cos": "attriboard.attributors.grad_cos:GradCos",
    "tracin": "attriboard.attributors.tracin:TracIn",
    "less": "attriboard.attributors.less:LESS",
    "if_explicit": "attriboard.attributors.if_explicit:IFExplicit",
    "if_cg": "attriboard.attributors.if_cg:IFCG",
    "if_lissa": "attriboard.attributors.if_lissa:IFLiSSA",
    "if_arnoldi": "attriboard.attributors.if_arnoldi:IFArnoldi",
    "datainf": "attriboard.attributors.datainf:DataInf",
    "ekfac": "attriboard.attributors.ekfac:EKFAC",
    "kfac": "attriboard.attributors.kfac:KFAC",
    "shampoo": "attriboard.attributors.shampoo:Shampoo",
    "ekfac_cg": "attriboard.attributors.ekfac_cg:EKFACCG",
    "astra": "attriboard.attributors.astra:ASTRA",
    "iffim": "attriboard.attributors.iffim:IFFIM",
    "trak": "attriboard.attributors.trak:TRAK",
    "logra": "attriboard.attributors.logra:LoGra",
    "factgrass": "attriboard.attributors.factgrass:FactGraSS",
    "trackstar": "attriboard.attributors.trackstar:TrackStar",
    "magic": "attriboard.attributors.magic:MAGIC",
    "source": "attriboard.attributors.source:SOURCE",
    "dvemb": "attriboard.attributors.dvemb:DVEmb",
    "rps": "attriboard.attributors.rps:RPS",
    "dual_svm": "attriboard.attributors.dual_svm:DualSVM",
    "dattri:if_cg": "attriboard.attributors.adapters.dattri:DattriCG",
    "dattri:tracin": "attriboard.attributors.adapters.dattri:DattriTracIn",
    "dattri:ekfac": "attriboard.attributors.adapters.dattri:DattriEKFAC",
    "dattri:trak": "attriboard.attributors.adapters.dattri:DattriTRAK",
    "traker:trak": "attriboard.attributors.adapters.traker:TrakerTRAK",
    "kronfluence:ekfac": "attriboard.attributors.adapters.kronfluence:KronfluenceEKFAC",
}
"""Name → reference, in the order of listings: controls first, other libraries' attributors last.

Those are called `library:method` and need that library; in records and file names the colon is a hyphen.
"""
