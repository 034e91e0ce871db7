import torch

from fedvtc.learning.models.feature_nets import FeatureGenerator, PrototypeNet


def test_a_prototype_net_is_two_linear_layers_of_the_embedding():
    net = PrototypeNet(num_classes=2, feature_size=1)
    first, _, last = net.net
    values = [(net.embedding_CD, [[1.0], [-1.0]]), (first.weight, [[2.0]]), (first.bias, [1.0])]
    values += [(last.weight, [[3.0]]), (last.bias, [0.5])]
    with torch.no_grad():
        for parameter, value in values:
            parameter.copy_(torch.tensor(value))
    # 3 * relu(2 * 1 + 1) + 0.5, and 3 * relu(-2 + 1) + 0.5.
    assert net().tolist() == [[9.5], [0.5]]


def test_embeddings_start_as_standard_normal():
    torch.manual_seed(0)
    embedding_CD = PrototypeNet(num_classes=100, feature_size=100).embedding_CD
    assert abs(embedding_CD.mean().item()) < 0.05
    assert abs(embedding_CD.std().item() - 1) < 0.05


def test_a_generator_has_the_parameters_of_its_formula():
    num_classes, size, noise, hidden = 10, 64, 32, 256
    generator = FeatureGenerator(num_classes, size, noise_size=noise, hidden_size=hidden)
    expected = (noise + num_classes + 1) * hidden + 2 * hidden + (hidden + 1) * size
    assert sum(array.numel() for array in generator.state_dict().values()) == expected == 27_968


def test_generated_features_are_normalised_and_depend_on_class_and_noise():
    torch.manual_seed(0)
    generator = FeatureGenerator(3, 5, noise_size=4, hidden_size=8)
    noise_BL = generator.draw_noise(2)
    assert noise_BL.shape == (2, 4)
    features_BD = generator(torch.cat([noise_BL, noise_BL[:1]]), torch.tensor([0, 0, 1]))
    assert torch.allclose(features_BD.mean(dim=1), torch.zeros(3), atol=1e-6)
    assert torch.allclose(features_BD.var(dim=1, unbiased=False), torch.ones(3), atol=1e-3)
    assert not torch.allclose(features_BD[0], features_BD[1])
    assert not torch.allclose(features_BD[0], features_BD[2])
